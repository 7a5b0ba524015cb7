"""Finds the model that a request names: how a job's spec will name it, and the folder that preflight reads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from api.errors import InvalidRequestError
from api.problems import FieldProblem
from api.schemas.requests import PathModel, UploadedModelSource
from core.errors import InvalidConfigError
from core.preflight.roots import resolve_model_path
from store.errors import NotFoundError

if TYPE_CHECKING:
    from api.deps import Principal
    from api.schemas.requests import HubModel
    from api.services import Services


@dataclass(frozen=True, slots=True, kw_only=True)
class Located:
    """A model that is here. spec: its part of a job's spec. folder: the model's own, or an uploaded one's outline."""

    spec: dict[str, Any]
    folder: Path
    uploaded_model_id: str | None = None


def hub_spec(model: HubModel) -> dict[str, Any]:
    """Returns how a job's spec names a model of the hub."""
    return {"source": "hub", "repo": model.repo, "revision": model.revision}


def located(model: PathModel | UploadedModelSource, services: Services, principal: Principal) -> Located:
    """Returns a local or uploaded model.

    Raises InvalidConfigError or ModelRefusedError where a path lies under no allowed root, InvalidRequestError where
    there is no such upload for the caller.
    """
    return _folder(model, services) if isinstance(model, PathModel) else _uploaded(model, services, principal)


def _folder(model: PathModel, services: Services) -> Located:
    root_name, folder = _resolved(model, services)
    root = next(root.path.resolve() for root in services.settings.model_roots if root.name == root_name)
    spec = {"source": "path", "root": root_name, "path": folder.relative_to(root).as_posix()}
    return Located(spec=spec, folder=folder)


def _resolved(model: PathModel, services: Services) -> tuple[str, Path]:
    roots = {root.name: root.path for root in services.settings.model_roots}
    if model.root is None:
        return resolve_model_path(Path(model.path), roots)
    if model.root not in roots:
        raise InvalidConfigError("model.root", model.root, "not an allowed root", ", ".join(sorted(roots)))
    return resolve_model_path(roots[model.root] / model.path, roots)


def _uploaded(model: UploadedModelSource, services: Services, principal: Principal) -> Located:
    try:
        with services.database.reading() as repository:
            stored = repository.get_uploaded_model(model.id, principal.sees)
            files = repository.list_model_files(stored.id)
    except NotFoundError as error:
        problem = FieldProblem(pointer="#/model/id", detail=str(error))
        raise InvalidRequestError(
            "uploaded_model_unknown", str(error), problem, hint="Upload the model first; GET /v1/uploaded-models lists."
        ) from error
    if model.sha256 not in {None, stored.sha256}:
        raise InvalidConfigError("model.sha256", model.sha256, "the upload has another", stored.sha256)
    spec = {"source": "upload", "id": stored.id, "name": stored.name, "sha256": stored.sha256}
    return Located(spec=spec, folder=services.outlines.of(stored.sha256, files), uploaded_model_id=stored.id)
