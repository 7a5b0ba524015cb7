"""`bitmill compare`: what jobs of a service came to, side by side."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.options import ApiKeyOption, JsonOption, UrlOption


def compare(
    job_ids: Annotated[list[str] | None, typer.Argument(metavar="JOB_ID...", help="Jobs of any state.")] = None,
    batch: Annotated[str | None, typer.Option("--batch", metavar="BATCH_ID", help="All jobs of a batch.")] = None,
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
    json_output: JsonOption = False,
) -> None:
    """Put jobs side by side: method, bits, size, perplexity, KL divergence, same likeliest token, time, state."""
    from cli.compare import compare_jobs

    compare_jobs(job_ids or [], batch, url=url, api_key=api_key, as_json=json_output)
