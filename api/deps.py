"""What routes ask for: the services, and who is calling with which rights.

Dependencies that only look are coroutines: FastAPI sends each plain function to a thread, at every request.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Literal

from fastapi import Depends, Path, Request, Security
from fastapi.security import APIKeyCookie, HTTPAuthorizationCredentials, HTTPBearer, SecurityScopes
from starlette.concurrency import run_in_threadpool

from api.errors import CsrfError, ForbiddenError, RateLimitedError, SessionOverError, UnauthenticatedError
from api.gate import SAFE_METHODS
from api.services import Services
from api.sessions import COOKIE, CSRF_HEADER, cookie_path, csrf_matches, csrf_token
from store.errors import NotFoundError
from store.keys import ApiKey, Quotas

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


SESSION = APIKeyCookie(
    name=COOKIE,
    auto_error=False,
    scheme_name="session",
    description="Of a browser that signed in with `POST /v1/session`; writes carry `X-CSRF-Token` too.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Who calls. owner_id: written into the rows that it makes. scopes: what it may do. by: how it was proven.

    csrf_token: of a session. expires_at: when the proof ends.
    """

    owner_id: str
    scopes: frozenset[str]
    name: str = "this machine"
    by: Literal["cookie", "key", "loopback"] = "loopback"
    quotas: Quotas = field(default_factory=Quotas)
    csrf_token: str | None = None
    expires_at: datetime | None = None

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


async def get_services(request: Request) -> Services:
    """Returns what `create_app` has made."""
    services: Services = request.app.state.services
    return services


ServicesDep = Annotated[Services, Depends(get_services)]


async def authenticate(
    needed: SecurityScopes,
    request: Request,
    services: ServicesDep,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(BEARER)],
    session: Annotated[str | None, Depends(SESSION)],
) -> Principal:
    """Returns the caller; raises UnauthenticatedError, ForbiddenError, CsrfError or RateLimitedError.

    A key that is named goes before a session, a session before the machine. Keyless calls never leave the event loop.
    """
    if credentials is not None:
        principal = await run_in_threadpool(_principal_of_bearer, services, credentials.credentials)
    elif session is not None:
        principal = await run_in_threadpool(_principal_of_session, services, session, request)
    elif services.settings.loopback:
        principal = LOCAL_PRINCIPAL
    else:
        raise UnauthenticatedError("This request needs a bearer key.")
    _require_rate(services, principal)
    for scope in needed.scopes:
        if not principal.may(scope):
            raise ForbiddenError(scope)
    return principal


def _require_rate(services: Services, principal: Principal) -> None:
    per_minute = principal.quotas.requests_per_minute
    wait = 0.0 if per_minute is None else services.rates.take(principal.owner_id, per_minute)
    if per_minute is not None and wait > 0:
        raise RateLimitedError(per_minute, wait)


def _principal_of_bearer(services: Services, bearer: str) -> Principal:
    with services.database.reading() as repository:
        key = repository.find_api_key(bearer)
    if key is None:
        raise UnauthenticatedError("The key is unknown, expired or revoked.")
    return principal_of_key(key, by="key", expires_at=key.expires_at)


def _principal_of_session(services: Services, token: str, request: Request) -> Principal:
    with services.database.reading() as repository:
        found = repository.find_session(token)
    if found is None:
        raise SessionOverError(cookie_path(request))
    if request.method not in SAFE_METHODS and not csrf_matches(token, request.headers.get(CSRF_HEADER)):
        raise CsrfError(CSRF_HEADER)
    key, expires_at = found
    return principal_of_key(key, by="cookie", expires_at=expires_at, csrf_token=csrf_token(token))


def principal_of_key(
    key: ApiKey, *, by: Literal["cookie", "key"], expires_at: datetime | None, csrf_token: str | None = None
) -> Principal:
    """Returns the caller that a key or a session of it proves."""
    return Principal(
        owner_id=key.id,
        scopes=key.scopes,
        name=key.name,
        by=by,
        quotas=key.quotas,
        csrf_token=csrf_token,
        expires_at=expires_at,
    )


Caller = Annotated[Principal, Security(authenticate)]
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


async def job_identifier(job_id: Annotated[str, Path(description="Of a job.")]) -> str:
    """Returns the path's job id; raises NotFoundError where it cannot be one."""
    return _require_identifier("job", job_id)


async def artifact_identifier(artifact_id: Annotated[str, Path(description="Of one of the job's files.")]) -> str:
    """Returns the path's artifact id; raises NotFoundError where it cannot be one."""
    return _require_identifier("artifact", artifact_id)


async def calibration_set_identifier(calibration_set_id: Annotated[str, Path(description="Of a stored text.")]) -> str:
    """Returns the path's calibration set id; raises NotFoundError where it cannot be one."""
    return _require_identifier("calibration set", calibration_set_id)


async def uploaded_model_identifier(uploaded_model_id: Annotated[str, Path(description="Of a stored model.")]) -> str:
    """Returns the path's uploaded model id; raises NotFoundError where it cannot be one."""
    return _require_identifier("uploaded model", uploaded_model_id)


async def batch_identifier(batch_id: Annotated[str, Path(description="Of a batch.")]) -> str:
    """Returns the path's batch id; raises NotFoundError where it cannot be one."""
    return _require_identifier("batch", batch_id)


async def key_identifier(key_id: Annotated[str, Path(description="Of a key; not its bearer text.")]) -> str:
    """Returns the path's key id; raises NotFoundError where it cannot be one."""
    return _require_identifier("API key", key_id)


async def webhook_identifier(webhook_id: Annotated[str, Path(description="Of a webhook.")]) -> str:
    """Returns the path's webhook id; raises NotFoundError where it cannot be one."""
    return _require_identifier("webhook", webhook_id)


async def delivery_identifier(
    delivery_id: Annotated[str, Path(description="Of one of the webhook's messages.")],
) -> str:
    """Returns the path's delivery id; raises NotFoundError where it cannot be one."""
    return _require_identifier("delivery", delivery_id)


async def worker_identifier(worker_id: Annotated[str, Path(description="Of a worker.")]) -> str:
    """Returns the path's worker id, in which a host's name stands; raises NotFoundError where it cannot be one."""
    if not WORKER_ID.fullmatch(worker_id):
        raise NotFoundError("worker", worker_id)
    return worker_id


JobId = Annotated[str, Depends(job_identifier)]
ArtifactId = Annotated[str, Depends(artifact_identifier)]
BatchId = Annotated[str, Depends(batch_identifier)]
WorkerId = Annotated[str, Depends(worker_identifier)]
KeyId = Annotated[str, Depends(key_identifier)]
WebhookId = Annotated[str, Depends(webhook_identifier)]
DeliveryId = Annotated[str, Depends(delivery_identifier)]
CalibrationSetId = Annotated[str, Depends(calibration_set_identifier)]
UploadedModelId = Annotated[str, Depends(uploaded_model_identifier)]
