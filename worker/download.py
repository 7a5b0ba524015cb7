"""The process that fetches a model of the hub, or a data set to calibrate on: a spec in, what was found out.

A process of its own, so that a cancel can end a stuck connection. Only files that the engine reads are fetched;
code, pickles and duplicates in other formats stay where they are.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
from huggingface_hub import DryRunFileInfo, snapshot_download
from huggingface_hub.errors import (
    DryRunError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from pydantic import ValidationError

from core.calibration.hub import parse_hub
from core.calibration.hub_download import Hub, fetch_dataset
from core.preflight.resources import check_disk
from worker.channel import Channel, run_child
from worker.errors import Failure, failure_from
from worker.faults import FaultPoint, Faults
from worker.protocol import FETCH_SPEC, DatasetSpec, DownloadSpec, Result

UNAVAILABLE = (HfHubHTTPError, LocalEntryNotFoundError, httpx.HTTPError, TimeoutError, ConnectionError)
"""What another attempt may not meet again."""

WANTED_FILES = (
    "*.safetensors",
    "*.safetensors.index.json",
    "config.json",
    "generation_config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab*",
    "merges.txt",
    "*.model",
    "chat_template*",
    "LICENSE*",
)
# A folder of the hub holds one checkpoint; what lies deeper (onnx, original, gguf) is another form of the same weights.
UNWANTED_FILES = ("*/*", "*.py", "*.bin", "*.pt", "*.pth", "*.pkl")


def fetch(spec: DownloadSpec) -> Result:
    """Downloads or completes the snapshot, where the disk has room for what is missing.

    Raises InsufficientResourcesError before the first byte, and huggingface_hub errors; `explain` makes them a failure.
    """
    asked: dict[str, Any] = {
        "repo_id": spec.repo,
        "revision": spec.revision,
        "endpoint": spec.endpoint,
        "token": spec.token or False,
        "cache_dir": spec.cache_dir,
        "allow_patterns": list(WANTED_FILES),
        "ignore_patterns": list(UNWANTED_FILES),
        "max_workers": 4,
    }
    # A hub that does not answer has nothing to be weighed; the snapshot may be complete in the cache.
    with suppress(DryRunError):
        check_disk(spec.cache_dir, missing_bytes(snapshot_download(**asked, dry_run=True)))
    folder = snapshot_download(**asked, dry_run=False)
    # The cache names a snapshot's folder by its commit.
    return Result(resolved={"model_dir": folder, "model_commit": Path(folder).name})


def missing_bytes(files: Sequence[DryRunFileInfo]) -> int:
    """Returns what a download would write; a file whose size the hub does not tell counts as nothing."""
    return sum(file.file_size or 0 for file in files if file.will_download)


def fetch_text(spec: DatasetSpec) -> Result:
    """Writes a data set's documents to their place. Raises core's and huggingface_hub's errors."""
    dataset = parse_hub(spec.name)
    pinned = replace(dataset, revision=spec.revision or dataset.revision)
    fetched = fetch_dataset(pinned, Hub(endpoint=spec.endpoint, token=spec.token, cache_dir=spec.cache_dir), spec.out)
    return Result(resolved={"calibration_commit": fetched.commit, "calibration_file": fetched.file})


def explain(error: Exception, spec: DownloadSpec | DatasetSpec) -> Failure:
    """Turns what the hub said into a failure with its remedy."""
    if isinstance(spec, DatasetSpec):
        return _unavailable(error, spec.name) if isinstance(error, UNAVAILABLE) else failure_from(error)
    revision = spec.revision or "the default branch"
    if isinstance(error, GatedRepoError):
        return Failure(
            code="model_forbidden",
            message=f"{spec.repo} is gated.",
            hint="Accept its terms on the hub and give the worker a token in BITMILL_HUB_TOKEN.",
        )
    if isinstance(error, RevisionNotFoundError):
        return Failure(
            code="model_revision_not_found",
            message=f"{spec.repo} has no revision {revision}.",
            hint="Give a commit hash, a branch or a tag of this model.",
        )
    if isinstance(error, RepositoryNotFoundError | HFValidationError):
        return Failure(
            code="model_not_found",
            message=f"The hub has no model {spec.repo!r}, or it is private.",
            hint="Check the name; for a private model give the worker a token in BITMILL_HUB_TOKEN.",
        )
    return _unavailable(error, spec.repo) if isinstance(error, UNAVAILABLE) else failure_from(error)


def _unavailable(error: Exception, name: str) -> Failure:
    return Failure(
        code="hub_unavailable",
        message=f"{name} could not be fetched: {error}",
        hint="The hub did not answer as it should; the job tries again by itself.",
    )


def main(channel: Channel) -> int:
    """Runs one download; returns the exit code."""
    try:
        spec = FETCH_SPEC.validate_json(channel.read_spec())
    except ValidationError as error:
        return channel.fail(Failure(code="spec_invalid", message=f"The work order cannot be read: {error}"))
    channel.listen(spec.silence_seconds)
    Faults(spec.faults.plan, spec.faults.folder).hit(FaultPoint.DOWNLOADING)
    try:
        channel.write(fetch(spec) if isinstance(spec, DownloadSpec) else fetch_text(spec))
    except Exception as error:  # noqa: BLE001 - the task's edge: whatever the library raises becomes one failure line
        traceback.print_exc(file=sys.stderr)
        return channel.fail(explain(error, spec))
    return 0


if __name__ == "__main__":
    run_child(main)
