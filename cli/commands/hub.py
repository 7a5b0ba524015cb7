"""`bitmill hub-token`: the token with which this key's jobs fetch from the model hub and upload to it."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from cli.options import ApiKeyOption, JsonOption, UrlOption


def hub_token(
    forget: Annotated[bool, typer.Option("--forget", help="Forget the stored token instead.")] = False,
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
    json_output: JsonOption = False,
) -> None:
    """Store the hub token that comes on standard input. It is kept encrypted and never shown again."""
    from cli.hub import forget_token, set_token

    if forget:
        forget_token(url=url, api_key=api_key, as_json=json_output)
    else:
        set_token(sys.stdin, url=url, api_key=api_key, as_json=json_output)
