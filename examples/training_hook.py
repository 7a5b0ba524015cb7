"""Quantizes what a training script has written, where the environment asks for it.

The last line of the training script, after the model and its tokenizer are saved:

    from training_hook import quantize_if_asked

    quantize_if_asked(output_folder)

| variable | meaning |
|---|---|
| QUANT_METHOD | method of the service, such as gptq; not set or empty: nothing is done |
| PTQ_TARGET_WEIGHTS_BITS | bits per weight |
| PTQ_TARGET_GROUP_SIZE | inputs that share one scale; -1: a whole row |

The service must be able to read the folder (BITMILL_MODEL_ROOTS). BITMILL_URL and BITMILL_API_KEY say where to ask.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from client import connect, download, model_of, post, wait


def options_from(environment: Mapping[str, str]) -> dict[str, Any] | None:
    """Returns the options of the job; None where no method is named. Raises ValueError naming a wrong variable.

    Which methods, bits and group sizes there are is left to the service, which refuses a wrong one by name.
    """
    method = environment.get("QUANT_METHOD")
    if not method:
        return None
    return {
        "method": method,
        "bits": _number(environment, "PTQ_TARGET_WEIGHTS_BITS"),
        "group_size": _number(environment, "PTQ_TARGET_GROUP_SIZE"),
    }


def _number(environment: Mapping[str, str], name: str) -> int:
    value = environment.get(name, "")
    try:
        return int(value)
    except ValueError as error:
        raise ValueError(f"{name} is {value!r}; with QUANT_METHOD it must be a whole number.") from error


def quantize_if_asked(output_folder: Path, environment: Mapping[str, str] = os.environ) -> Path | None:
    """Submits the folder, waits, and downloads beside it; returns the artifact's folder, None where nothing was asked.

    Raises ValueError on a wrong variable, client.JobEndedBadlyError where the job fails.
    """
    options = options_from(environment)
    if options is None:
        return None
    artifact = output_folder.with_name(
        f"{output_folder.name}-{options['method']}-w{options['bits']}-g{options['group_size']}"
    )
    with connect() as client:
        job_id = post(client, "/v1/jobs", {"model": model_of(str(output_folder)), **options})["id"]
        wait(client, job_id)
        download(client, job_id, artifact)
    return artifact


if __name__ == "__main__":
    print(quantize_if_asked(Path(sys.argv[1]).absolute()) or "QUANT_METHOD is not set: nothing to do.")
