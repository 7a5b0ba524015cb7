"""The process that uploads a finished artifact to a repository of the hub: a spec in, the commit out.

A process of its own, for the sake of the token: it comes with the spec, and nothing else has it.
"""

from __future__ import annotations

import sys
import traceback

import httpx2
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from pydantic import ValidationError

from worker.channel import Channel, run_child
from worker.errors import Failure, failure_from
from worker.protocol import Result, UploadSpec

REFUSED = frozenset({400, 401, 403, 404, 409, 422})


def upload(spec: UploadSpec) -> Result:
    """Makes the repository where it is not there, and commits every file of the folder to it."""
    api = HfApi(endpoint=spec.endpoint, token=spec.token)
    api.create_repo(spec.repo, private=spec.private, exist_ok=True)
    commit = api.upload_folder(repo_id=spec.repo, folder_path=spec.folder, commit_message=spec.message)
    return Result(resolved={"commit": commit.oid})


def explain(error: Exception, spec: UploadSpec) -> Failure:
    """Turns what the hub said into a failure; what it refused is not tried again."""
    if isinstance(error, HFValidationError):
        return Failure(code="hub_refused", message=f"{spec.repo!r} is no name of a repository.")
    if isinstance(error, HfHubHTTPError) and error.response is not None and error.response.status_code in REFUSED:
        said = error.server_message or f"status {error.response.status_code}"
        return Failure(code="hub_refused", message=f"The hub refused the upload to {spec.repo}: {said}.")
    if isinstance(error, HfHubHTTPError | httpx2.HTTPError | TimeoutError | ConnectionError):
        return Failure(code="hub_unavailable", message=f"The upload to {spec.repo} broke: {type(error).__name__}.")
    return failure_from(error)


def main(channel: Channel) -> int:
    """Runs one upload; returns the exit code."""
    try:
        spec = UploadSpec.model_validate_json(channel.read_spec())
    except ValidationError as error:
        return channel.fail(Failure(code="spec_invalid", message=f"The work order cannot be read: {error}"))
    channel.listen(spec.silence_seconds)
    try:
        channel.write(upload(spec))
    except Exception as error:  # noqa: BLE001 - the task's edge: whatever the library raises becomes one failure line
        traceback.print_exc(file=sys.stderr)
        return channel.fail(explain(error, spec))
    return 0


if __name__ == "__main__":
    run_child(main)
