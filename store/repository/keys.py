"""API keys, the sessions that browsers open with them, and what each key takes of its quotas."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from sqlalchemy import Select, delete, func, insert, or_, select, update

from store.errors import NotFoundError, QuotaExceededError
from store.ids import IdPrefix, new_id
from store.jobs import TERMINAL_STATES
from store.keys import API_SCOPES, ApiKey, Quotas, Usage
from store.repository.base import RepositoryBase
from store.repository.clock import database_time
from store.repository.rows import api_key_from_row
from store.tables import api_keys, artifacts, calibration_sets, jobs, sessions, uploaded_models

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

BEARER_PREFIX = "bm"
SECRET_BYTES = 32
_KEY_PREFIX = f"{IdPrefix.API_KEY}_"


def _hash_secret(secret: str) -> str:
    """Plain SHA-256 is enough: the secret is 256 random bits, nothing to guess, so a slow hash buys nothing."""
    return hashlib.sha256(secret.encode()).hexdigest()


def _split_bearer(bearer: str) -> tuple[str, str] | None:
    """Returns (row id, secret) of `bm_<id>_<secret>`, or None where it has another form."""
    prefix, _, rest = bearer.partition("_")
    identifier, _, secret = rest.partition("_")
    if prefix != BEARER_PREFIX or not identifier.isalnum() or not secret.isalnum():
        return None
    return _KEY_PREFIX + identifier, secret


def _usable_keys() -> Select[Any]:
    unexpired = or_(api_keys.c.expires_at.is_(None), api_keys.c.expires_at > database_time())
    return select(api_keys).where(api_keys.c.revoked_at.is_(None), unexpired)


def _checked_scopes(scopes: Iterable[str]) -> list[str]:
    wanted = frozenset(scopes)
    if not wanted or wanted - API_SCOPES:
        raise ValueError(f"scopes must be some of {', '.join(sorted(API_SCOPES))}; got {sorted(wanted)}")
    return sorted(wanted)


def _quota_columns(quotas: Quotas) -> dict[str, int | None]:
    return {f"max_{name}": value for name, value in asdict(quotas).items()}


class KeyPart(RepositoryBase):
    """The part of the repository that authentication and the key routes use."""

    def add_api_key(
        self, name: str, scopes: Iterable[str], expires_at: datetime | None = None, quotas: Quotas | None = None
    ) -> tuple[ApiKey, str]:
        """Returns the key and its bearer text, which is stored nowhere; raises ValueError on an unknown scope."""
        key_id, secret = new_id(IdPrefix.API_KEY), secrets.token_hex(SECRET_BYTES)
        values = {
            "id": key_id,
            "name": name,
            "secret_sha256": _hash_secret(secret),
            "scopes": _checked_scopes(scopes),
            "created_at": database_time(),
            "expires_at": expires_at,
            **_quota_columns(quotas or Quotas()),
        }
        row = self._connection.execute(insert(api_keys).values(values).returning(*api_keys.c)).one()
        return api_key_from_row(row), f"{BEARER_PREFIX}_{key_id.removeprefix(_KEY_PREFIX)}_{secret}"

    def change_api_key(self, key_id: str, changes: Mapping[str, Any]) -> ApiKey:
        """Sets some of name, scopes, expires_at and quotas, from the commit on.

        Raises NotFoundError, and ValueError on an unknown scope.
        """
        values = dict(changes)
        if "scopes" in values:
            values["scopes"] = _checked_scopes(values["scopes"])
        if "quotas" in values:
            values |= _quota_columns(values.pop("quotas"))
        if not values:
            return self.get_api_key(key_id)
        statement = update(api_keys).where(api_keys.c.id == key_id).values(values).returning(*api_keys.c)
        row = self._connection.execute(statement).one_or_none()
        if row is None:
            raise NotFoundError("API key", key_id)
        return api_key_from_row(row)

    def find_api_key(self, bearer: str) -> ApiKey | None:
        """Returns the key that a bearer text proves, or None: wrong form, unknown, wrong secret, expired, revoked."""
        parts = _split_bearer(bearer)
        if parts is None:
            return None
        key_id, secret = parts
        row = self._connection.execute(_usable_keys().where(api_keys.c.id == key_id)).one_or_none()
        # An unknown id is compared too, so that the answer's time does not tell it from a wrong secret.
        stored = "" if row is None else row.secret_sha256
        proven = hmac.compare_digest(_hash_secret(secret), stored)
        return api_key_from_row(row) if proven and row is not None else None

    def get_api_key(self, key_id: str) -> ApiKey:
        """Returns a key, revoked and expired ones too; raises NotFoundError."""
        row = self._connection.execute(select(api_keys).where(api_keys.c.id == key_id)).one_or_none()
        if row is None:
            raise NotFoundError("API key", key_id)
        return api_key_from_row(row)

    def list_api_keys(self) -> tuple[ApiKey, ...]:
        """Returns every key, revoked and expired ones too, newest first."""
        statement = select(api_keys).order_by(api_keys.c.created_at.desc(), api_keys.c.id.desc())
        return tuple(api_key_from_row(row) for row in self._connection.execute(statement))

    def revoke_api_key(self, key_id: str) -> ApiKey:
        """Makes a key useless from the commit on; doing it again changes nothing. Raises NotFoundError."""
        statement = (
            update(api_keys)
            .where(api_keys.c.id == key_id)
            .values(revoked_at=func.coalesce(api_keys.c.revoked_at, database_time()))
            .returning(*api_keys.c)
        )
        row = self._connection.execute(statement).one_or_none()
        if row is None:
            raise NotFoundError("API key", key_id)
        self._connection.execute(delete(sessions).where(sessions.c.key_id == key_id))
        return api_key_from_row(row)

    def any_api_key(self) -> bool:
        """Whether at least one key could be used now."""
        return self._connection.execute(_usable_keys().limit(1)).first() is not None

    def open_session(self, key_id: str, lifetime_seconds: float) -> tuple[str, datetime]:
        """Returns a token that stands for a key for a while, and when it ends; only the token's hash is stored."""
        token = secrets.token_urlsafe(SECRET_BYTES)
        statement = insert(sessions).values(
            token_sha256=_hash_secret(token),
            key_id=key_id,
            created_at=database_time(),
            expires_at=database_time(lifetime_seconds),
        )
        expires_at: datetime = self._connection.execute(statement.returning(sessions.c.expires_at)).scalar_one()
        return token, expires_at

    def find_session(self, token: str) -> tuple[ApiKey, datetime] | None:
        """Returns the key that a session stands for and when it ends; None where either is no longer good."""
        statement = (
            _usable_keys()
            .join(sessions, sessions.c.key_id == api_keys.c.id)
            .add_columns(sessions.c.expires_at.label("session_expires_at"))
            .where(sessions.c.token_sha256 == _hash_secret(token), sessions.c.expires_at > database_time())
        )
        row = self._connection.execute(statement).one_or_none()
        return None if row is None else (api_key_from_row(row), row.session_expires_at)

    def close_session(self, token: str) -> None:
        """Ends a session; nothing happens where it is over."""
        self._connection.execute(delete(sessions).where(sessions.c.token_sha256 == _hash_secret(token)))

    def remove_expired_sessions(self) -> int:
        """Removes the rows of sessions that are over; returns how many."""
        over = delete(sessions).where(sessions.c.expires_at <= database_time())
        return len(self._connection.execute(over.returning(sessions.c.key_id)).all())

    def usage(self, owner: str) -> Usage:
        """Returns what an owner takes now."""
        return Usage(
            jobs_in_flight=self._sum(
                select(func.count())
                .select_from(jobs)
                .where(jobs.c.owner_key_id == owner, jobs.c.state.not_in(TERMINAL_STATES))
            ),
            stored_bytes=self._sum(
                select(func.sum(artifacts.c.size_bytes))
                .join(jobs, jobs.c.id == artifacts.c.job_id)
                .where(jobs.c.owner_key_id == owner)
            ),
            calibration_bytes=self._sum(
                select(func.sum(calibration_sets.c.size_bytes)).where(calibration_sets.c.owner_key_id == owner)
            ),
            model_bytes=self._sum(
                select(func.sum(uploaded_models.c.size_bytes)).where(uploaded_models.c.owner_key_id == owner)
            ),
        )

    def require_quota(self, owner: str) -> None:
        """Raises QuotaExceededError where an owner takes more than its key allows. Called after a row was added, so
        that the exception's rollback takes it back.

        The key's row is locked first: of several transactions that add at once, each counts what the others did.
        One without quotas is left alone, or its owner's transactions would commit one after the other. An owner
        without a key, which is the machine itself, has no quotas. Who knows that a key has none need not ask.
        """
        limited = or_(*(api_keys.c[f"max_{quota.name}"].is_not(None) for quota in fields(Usage)))
        statement = select(api_keys).where(api_keys.c.id == owner, limited).with_for_update()
        row = self._connection.execute(statement).one_or_none()
        if row is None:
            return
        allowed, used = asdict(api_key_from_row(row).quotas), asdict(self.usage(owner))
        for name, taken in used.items():
            if allowed[name] is not None and taken > allowed[name]:
                raise QuotaExceededError(name, allowed[name], taken)

    def _sum(self, statement: Select[Any]) -> int:
        return int(self._connection.execute(statement).scalar_one() or 0)
