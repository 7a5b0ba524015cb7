"""The process that fetches a model of the hub, or a data set to calibrate on: a spec in, what was found out.

A process of its own, so that a cancel can end a stuck connection. Only files that the engine reads are fetched;
code, pickles and duplicates in other formats stay where they are. A model that the job could not run on is refused by
its small files and the headers of its shards.
"""

from __future__ import annotations

import shutil
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
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
from core.preflight.model_files import UNWANTED_FILES, WANTED_FILES
from core.preflight.resources import check_disk
from worker.channel import Channel, run_child
from worker.errors import Failure, failure_from
from worker.faults import FaultPoint, Faults
from worker.hub_bars import counting_bars
from worker.hub_headers import HubFiles, lay_out
from worker.preflight import check_attempt, run_request
from worker.protocol import FETCH_SPEC, DatasetSpec, DownloadSpec, Fetched, Result

UNAVAILABLE = (HfHubHTTPError, LocalEntryNotFoundError, httpx2.HTTPError, TimeoutError, ConnectionError)
"""What another attempt may not meet again."""

SHARDS = ".safetensors"
HEADERS = "headers"
"""A folder beside the job's work folder, as long as it is looked at."""


def fetch(spec: DownloadSpec, on_bytes: Callable[[int, int], None]) -> Result:
    """Downloads or completes the snapshot, where the job can run on that model and there is room for both.

    on_bytes: is told how many bytes of the weights have come, and of how many. Raises core's errors before the first
    shard, and huggingface_hub's; `explain` makes them a failure.
    """
    expected = 0
    # A hub that does not answer has nothing to be weighed; the snapshot may be complete in the cache.
    with suppress(DryRunError):
        files = snapshot_download(**_asked_of_hub(spec), dry_run=True)
        refuse_unfit(spec, files)
        expected = missing_bytes([file for file in files if file.filename.endswith(SHARDS)])
    bars = counting_bars(expected, on_bytes)
    folder = snapshot_download(**_asked_of_hub(spec), dry_run=False, tqdm_class=bars)
    # The cache names a snapshot's folder by its commit.
    return Result(resolved={"model_dir": folder, "model_commit": Path(folder).name})


def _asked_of_hub(spec: DownloadSpec, *unwanted: str) -> dict[str, Any]:
    return {
        "repo_id": spec.repo,
        "revision": spec.revision,
        "endpoint": spec.endpoint,
        "token": spec.token or False,
        "cache_dir": spec.cache_dir,
        "allow_patterns": list(WANTED_FILES),
        "ignore_patterns": [*UNWANTED_FILES, *unwanted],
        "max_workers": 4,
    }


def refuse_unfit(spec: DownloadSpec, files: Sequence[DryRunFileInfo]) -> None:
    """Raises core's errors where the attempt could not run on the model of these files, or they find no room."""
    missing = missing_bytes(files)
    shards = [file for file in files if file.filename.endswith(SHARDS)]
    # A snapshot that is complete is looked at when it is read, and what has no size cannot be laid out.
    if not missing or any(file.file_size is None for file in shards):
        return
    check_disk(spec.cache_dir, missing)
    pinned = spec.model_copy(update={"revision": files[0].commit_hash})
    snapshot = Path(snapshot_download(**_asked_of_hub(pinned, f"*{SHARDS}"), dry_run=False))
    hub = HubFiles(repo=spec.repo, commit=files[0].commit_hash, endpoint=spec.endpoint, token=spec.token)
    with _empty_folder(spec.work_dir.with_name(HEADERS)) as folder:
        lay_out(shards, snapshot, folder, hub.read_start)
        check_attempt(
            run_request(spec.asked),
            folder,
            spec.work_dir,
            writes_text=spec.asked.writes_text,
            fetches={spec.cache_dir: missing},
        )


@contextmanager
def _empty_folder(folder: Path) -> Iterator[Path]:
    """Makes a folder and removes it; one that a killed process left is emptied."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


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


def _tell(channel: Channel, done_bytes: int, total_bytes: int) -> None:
    channel.write(Fetched(done_bytes=done_bytes, total_bytes=total_bytes))


def main(channel: Channel) -> int:
    """Runs one download; returns the exit code."""
    try:
        spec = FETCH_SPEC.validate_json(channel.read_spec())
    except ValidationError as error:
        return channel.fail(Failure(code="spec_invalid", message=f"The work order cannot be read: {error}"))
    channel.listen(spec.silence_seconds)
    Faults(spec.faults.plan, spec.faults.folder).hit(FaultPoint.DOWNLOADING)
    try:
        if isinstance(spec, DownloadSpec):
            channel.write(fetch(spec, partial(_tell, channel)))
        else:
            channel.write(fetch_text(spec))
    except Exception as error:  # noqa: BLE001 - the task's edge: whatever the library raises becomes one failure line
        traceback.print_exc(file=sys.stderr)
        return channel.fail(explain(error, spec))
    return 0


if __name__ == "__main__":
    run_child(main)
