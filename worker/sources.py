"""Reads where a job's model comes from: a folder under the allowed roots, the hub, or an upload in the store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.errors import ModelProblem, ModelRefusedError
from core.preflight.roots import resolve_model_path
from worker.protocol import Asked, DatasetSpec, DownloadSpec, FaultPlan
from worker.settings import WorkerSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalSource:
    """A folder, as stored at the submit: path is relative to the named root."""

    root: str
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HubSource:
    """A model of the hub. revision: commit, branch or tag; None is the default branch."""

    repo: str
    revision: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadSource:
    """A model whose files are in the object store. name, sha256: as stored at the submit."""

    id: str
    name: str
    sha256: str


Source = LocalSource | HubSource | UploadSource


def source_of(model: Mapping[str, Any]) -> Source:
    """Reads a job spec's `model`; raises KeyError or ValueError where it is none."""
    match model["source"]:
        case "path":
            return LocalSource(root=model["root"], path=model["path"])
        case "hub":
            return HubSource(repo=model["repo"], revision=model.get("revision"))
        case "upload":
            return UploadSource(id=model["id"], name=model["name"], sha256=model["sha256"])
        case other:
            raise ValueError(f"unknown model source {other!r}")


def local_folder(source: LocalSource, settings: WorkerSettings) -> Path:
    """Returns the folder, checked against this worker's roots again: links may have changed since the submit.

    Raises ModelRefusedError where this worker has no such root, or the path leads out of it.
    """
    roots = {root.name: root.path for root in settings.model_roots}
    if source.root not in roots:
        raise ModelRefusedError(
            ModelProblem.NOT_FOUND,
            f"This worker has no model root {source.root!r}.",
            "Set BITMILL_MODEL_ROOTS to the same roots for the API and every worker.",
        )
    return resolve_model_path(roots[source.root] / source.path, roots)[1]


def download_spec(
    source: HubSource, asked: Asked, work_dir: Path, settings: WorkerSettings, owners_token: str | None = None
) -> DownloadSpec:
    """Returns the downloader's work order. owners_token: of the job's owner; without one, the worker's own is used."""
    return DownloadSpec(
        asked=asked,
        work_dir=work_dir,
        repo=source.repo,
        revision=source.revision,
        endpoint=settings.hub_endpoint,
        token=_hub_token(settings, owners_token),
        cache_dir=settings.cache_dir / "hub",
        faults=fault_plan(settings),
        silence_seconds=settings.fence_seconds,
    )


def fault_plan(settings: WorkerSettings) -> FaultPlan:
    """Returns what a test has planned for the children."""
    return FaultPlan(plan=settings.test_faults, folder=settings.test_faults_dir)


def _hub_token(settings: WorkerSettings, owners: str | None) -> str | None:
    ours = None if settings.hub_token is None else settings.hub_token.get_secret_value()
    return ours if owners is None else owners


def dataset_spec(
    name: str, revision: str | None, out: Path, settings: WorkerSettings, owners_token: str | None = None
) -> DatasetSpec:
    """Returns the downloader's work order for calibration text. owners_token: as in `download_spec`."""
    return DatasetSpec(
        name=name,
        revision=revision,
        endpoint=settings.hub_endpoint,
        token=_hub_token(settings, owners_token),
        cache_dir=settings.cache_dir / "hub",
        out=out,
        silence_seconds=settings.fence_seconds,
        faults=fault_plan(settings),
    )


def provenance_of(source: Source, resolved: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what the artifact's report may say about its source: no path, nothing that differs between attempts."""
    if isinstance(source, HubSource):
        return {"model": source.repo, "model_commit": resolved.get("model_commit")}
    if isinstance(source, UploadSource):
        return {"model": source.name, "model_sha256": source.sha256}
    return {"model": Path(source.path).name}
