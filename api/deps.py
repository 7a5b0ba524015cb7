"""What routes ask for: the services, and who is calling with which rights."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer, SecurityScopes
from starlette.concurrency import run_in_threadpool

from api.errors import ForbiddenError, UnauthenticatedError
from api.services import Services
from store.errors import NotFoundError

JOBS_READ = "jobs:read"
JOBS_WRITE = "jobs:write"
JOBS_CANCEL = "jobs:cancel"
ARTIFACTS_READ = "artifacts:read"
ADMIN = "admin"
LOCAL_OWNER = "local"
IDENTIFIER_MAX_CHARS = 64
WORKER_ID = re.compile(r"[A-Za-z0-9._-]{1,320}")

BEARER = HTTPBearer(
    auto_error=False,
    scheme_name="apiKey",
    bearerFormat="bm_<id>_<secret>",
    description="Needed on every binding but loopback. Keys are made with `bitmill keys create`.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Who calls. owner_id: written into the rows that it makes. scopes: what it may do."""

    owner_id: str
    scopes: frozenset[str]

    @property
    def sees(self) -> str | None:
        """The owner whose rows it sees; None: everybody's."""
        return None if ADMIN in self.scopes else self.owner_id

    def may(self, scope: str) -> bool:
        """Whether it holds a scope. Admin holds all; who may submit may cancel."""
        implied_by = {scope, ADMIN, JOBS_WRITE} if scope == JOBS_CANCEL else {scope, ADMIN}
        return not self.scopes.isdisjoint(implied_by)


# Whoever can connect to loopback is on the machine, and could read the database file as well.
LOCAL_PRINCIPAL = Principal(owner_id=LOCAL_OWNER, scopes=frozenset({ADMIN}))


def get_services(request: Request) -> Services:
    """Returns what `create_app` has made."""
    services: Services = request.app.state.services
    return services


ServicesDep = Annotated[Services, Depends(get_services)]


async def authenticate(
    needed: SecurityScopes,
    services: ServicesDep,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(BEARER)],
) -> Principal:
    """Returns the caller; raises UnauthenticatedError or ForbiddenError. Keyless calls never leave the event loop."""
    if credentials is not None:
        principal = await run_in_threadpool(_principal_of, services, credentials.credentials)
    elif services.settings.loopback:
        principal = LOCAL_PRINCIPAL
    else:
        raise UnauthenticatedError("This request needs a bearer key.")
    for scope in needed.scopes:
        if not principal.may(scope):
            raise ForbiddenError(scope)
    return principal


def _principal_of(services: Services, bearer: str) -> Principal:
    with services.database.reading() as repository:
        key = repository.find_api_key(bearer)
    if key is None:
        raise UnauthenticatedError("The key is unknown, expired or revoked.")
    return Principal(owner_id=key.id, scopes=key.scopes)


JobReader = Annotated[Principal, Security(authenticate, scopes=[JOBS_READ])]
JobWriter = Annotated[Principal, Security(authenticate, scopes=[JOBS_WRITE])]
JobCanceller = Annotated[Principal, Security(authenticate, scopes=[JOBS_CANCEL])]
ArtifactReader = Annotated[Principal, Security(authenticate, scopes=[ARTIFACTS_READ])]
Admin = Annotated[Principal, Security(authenticate, scopes=[ADMIN])]


def _require_identifier(kind: str, identifier: str) -> str:
    """Anything that no id can look like is simply not there; it never reaches the database."""
    if not (identifier.isascii() and identifier.replace("_", "").isalnum() and len(identifier) <= IDENTIFIER_MAX_CHARS):
        raise NotFoundError(kind, identifier)
    return identifier


def job_identifier(job_id: str) -> str:
    """Returns the path's job id; raises NotFoundError where it cannot be one."""
    return _require_identifier("job", job_id)


def artifact_identifier(artifact_id: str) -> str:
    """Returns the path's artifact id; raises NotFoundError where it cannot be one."""
    return _require_identifier("artifact", artifact_id)


def calibration_set_identifier(calibration_set_id: str) -> str:
    """Returns the path's calibration set id; raises NotFoundError where it cannot be one."""
    return _require_identifier("calibration set", calibration_set_id)


def batch_identifier(batch_id: str) -> str:
    """Returns the path's batch id; raises NotFoundError where it cannot be one."""
    return _require_identifier("batch", batch_id)


def worker_identifier(worker_id: str) -> str:
    """Returns the path's worker id, in which a host's name stands; raises NotFoundError where it cannot be one."""
    if not WORKER_ID.fullmatch(worker_id):
        raise NotFoundError("worker", worker_id)
    return worker_id


JobId = Annotated[str, Depends(job_identifier)]
ArtifactId = Annotated[str, Depends(artifact_identifier)]
BatchId = Annotated[str, Depends(batch_identifier)]
WorkerId = Annotated[str, Depends(worker_identifier)]
CalibrationSetId = Annotated[str, Depends(calibration_set_identifier)]
