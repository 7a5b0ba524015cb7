"""What `bitmill hub-token` and `jobs publish` do, over HTTP."""

from __future__ import annotations

from typing import IO, Any

from cli.client import ServiceClient
from cli.errors import CliError, ExitCode
from cli.output import out, print_json
from cli.settings import client_settings

TOKEN_PATH = "/v1/hub-token"  # noqa: S105 - a path


def set_token(stream: IO[str], *, url: str | None, api_key: str | None, as_json: bool) -> None:
    """Stores the token that stands on the first line of a stream: a command line could be read by others."""
    token = stream.readline().strip()
    if not token:
        raise CliError(
            ExitCode.USAGE,
            "No token came on standard input.",
            hint="Pipe it in, like: bitmill hub-token < token.txt",
            code="no_token",
        )
    with ServiceClient(client_settings(url, api_key)) as client:
        stored = client.put(TOKEN_PATH, {"token": token})
    _say(stored, "The hub token is stored.", as_json=as_json)


def forget_token(*, url: str | None, api_key: str | None, as_json: bool) -> None:
    """Forgets the token."""
    with ServiceClient(client_settings(url, api_key)) as client:
        client.delete(TOKEN_PATH)
    _say({"stored": False}, "The hub token is forgotten.", as_json=as_json)


def publish_job(job_id: str, repo: str, *, public: bool, url: str | None, api_key: str | None, as_json: bool) -> None:
    """Asks for an upload of a job's files to the hub."""
    with ServiceClient(client_settings(url, api_key)) as client:
        publication = client.post(f"/v1/jobs/{job_id}:publish", {"repo": repo, "private": not public})
    _say(publication, f"{publication['id']} is {publication['state']}: a worker uploads to {repo}.", as_json=as_json)


def _say(value: dict[str, Any], words: str, *, as_json: bool) -> None:
    if as_json:
        print_json(value)
    else:
        out().print(words)
