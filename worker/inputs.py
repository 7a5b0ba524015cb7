"""Fetches what a job names (model folder, calibration text) and writes the child's work order."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from core.calibration.builtin import BUILTIN_NAME
from core.calibration.hub import PREFIX as HUB_PREFIX
from core.calibration.hub import SELF_SET
from core.configs import DEFAULT_FORMATS, parse_formats
from core.errors import ModelProblem, ModelRefusedError
from store.jobs import Job, Stage
from store.models import ModelFile
from store.vault import Vault
from worker.errors import AttemptFailedError, Failure
from worker.faults import FaultPoint
from worker.lease import Lease
from worker.model_cache import FetchWatch, ModelCache
from worker.protocol import Asked, CalibrationText, DatasetSpec, DownloadSpec, QuantizeSpec, Result
from worker.services import Services
from worker.sources import (
    HubSource,
    LocalSource,
    Source,
    UploadSource,
    dataset_spec,
    download_spec,
    fault_plan,
    local_folder,
    provenance_of,
    source_of,
)
from worker.workfolder import WorkFolder


class Inputs:
    """The inputs of one attempt. Use it as a context: an uploaded model stays in the cache as long as that lasts.

    download: runs the downloader under the attempt's lease. on_bytes: is told how many bytes of an uploaded model have
    come, and of how many. go_on: raises where the attempt is to end.
    """

    def __init__(
        self,
        services: Services,
        job: Job,
        lease: Lease,
        folder: WorkFolder,
        *,
        download: Callable[[DownloadSpec | DatasetSpec], Result],
        on_bytes: Callable[[int, int], None],
        go_on: Callable[[], None],
    ) -> None:
        self._services = services
        self._job = job
        self._lease = lease
        self._folder = folder
        self._download = download
        self._watch = FetchWatch(go_on=go_on, on_file=self._on_file, on_bytes=on_bytes)
        self._held = ExitStack()

    def __enter__(self) -> Self:
        """Returns itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Lets go of what was held."""
        self._held.close()

    def spec(self, *, threads: int | None) -> QuantizeSpec:
        """Returns the work order, with every input in place.

        Raises AttemptFailedError, and core and store errors, where an input cannot be had.
        """
        spec = self._job.spec
        try:
            source, asked = source_of(spec["model"]), _asked(spec)
            text = None if asked.calibration is None else str(spec["calibration"]["set"])
        except (KeyError, TypeError, ValueError) as error:
            raise AttemptFailedError(
                Failure(code="spec_invalid", message=f"The job's stored request cannot be read: {error!r}.")
            ) from error
        return QuantizeSpec(
            asked=asked,
            model_dir=self._model_dir(source, asked),
            work_dir=self._folder.blocks,
            out_dir=self._folder.artifact,
            calibration=None if text is None else self._calibration(text),
            plan=self._lease.journal.resolved.get("budget_plan"),
            evaluate=bool(spec.get("evaluate", False)),
            evaluate_nf4=bool(spec.get("evaluate_nf4", True)),
            threads=threads,
            device=self._services.settings.device,
            activation_memory=self._services.settings.activation_memory,
            provenance=provenance_of(source, self._lease.journal.resolved),
            cache_dir=self._services.settings.cache_dir,
            engine_file=self._services.settings.test_engine,
            faults=fault_plan(self._services.settings),
            silence_seconds=self._services.settings.fence_seconds,
        )

    def _model_dir(self, source: Source, asked: Asked) -> Path:
        if isinstance(source, LocalSource):
            return local_folder(source, self._services.settings)
        if isinstance(source, UploadSource):
            return self._uploaded(source)
        resolved = self._lease.journal.resolved
        # A later attempt stays at the commit that the first one found, or its blocks could not be resumed.
        pinned = HubSource(repo=source.repo, revision=resolved.get("model_commit", source.revision))
        order = download_spec(pinned, asked, self._folder.blocks, self._services.settings, self._owners_token())
        facts: dict[str, Any] = self._download(order).resolved
        self._lease.journal.resolve({"model_commit": facts["model_commit"]})
        return Path(facts["model_dir"])

    def _uploaded(self, source: UploadSource) -> Path:
        with self._services.database.reading() as repository:
            files = repository.list_model_files(source.id)
        if not files:
            raise ModelRefusedError(
                ModelProblem.NOT_FOUND, f"The uploaded model {source.name!r} was deleted.", "Upload it again."
            )
        self._lease.enter(Stage.DOWNLOADING)
        settings = self._services.settings
        cache = ModelCache(self._services.artifacts, settings.cache_dir / "uploads", settings.model_cache_bytes)
        return self._held.enter_context(cache.held(source.sha256, files, self._watch))

    def _on_file(self, file: ModelFile) -> None:
        self._lease.journal.log.add("worker", "model_file_fetched", name=file.name, bytes=file.size_bytes)
        self._services.faults.hit(FaultPoint.MODEL_FILE)

    def _owners_token(self) -> str | None:
        with self._services.database.reading() as repository:
            stored = repository.hub_token(self._job.owner_key_id)
        return None if stored is None else Vault.from_settings(self._services.settings).open(stored[0])

    def _calibration(self, set_id: str) -> CalibrationText:
        folder = self._folder
        if set_id == SELF_SET:
            return CalibrationText(path=folder.calibration, look=False)
        if set_id.startswith(HUB_PREFIX):
            commit = self._lease.journal.resolved.get("calibration_commit")
            spec = dataset_spec(set_id, commit, folder.calibration, self._services.settings, self._owners_token())
            self._lease.journal.resolve(self._download(spec).resolved)
            return CalibrationText(path=folder.calibration)
        with self._services.database.reading() as repository:
            stored = repository.get_calibration_set(set_id, None)
        self._services.artifacts.fetch_to(stored.sha256, self._folder.calibration)
        self._lease.journal.resolve({"calibration_sha256": stored.sha256})
        return CalibrationText(path=self._folder.calibration, look=stored.name != BUILTIN_NAME)


def _asked(spec: Mapping[str, Any]) -> Asked:
    """Reads what a stored request asks for; raises KeyError, TypeError or ValueError where it cannot be read."""
    calibration = spec.get("calibration")
    options = None if calibration is None else {key: value for key, value in calibration.items() if key != "set"}
    return Asked(
        quantization=dict(spec["quantization"]),
        calibration=options,
        budget=spec.get("budget"),
        targets=tuple(spec.get("targets", ())),
        formats=parse_formats(spec.get("formats", DEFAULT_FORMATS)),
        writes_text=calibration is not None and calibration["set"] == SELF_SET,
    )
