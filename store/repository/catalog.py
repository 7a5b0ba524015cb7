"""What outlives jobs: calibration sets and API keys."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import TYPE_CHECKING

from sqlalchemy import Select, func, insert, or_, select, update

from store.errors import NotFoundError
from store.ids import IdPrefix, new_id
from store.jobs import API_SCOPES, ApiKey, CalibrationSet, NewCalibrationSet
from store.repository.base import RepositoryBase, owned
from store.repository.clock import database_time
from store.repository.rows import api_key_from_row, calibration_set_from_row
from store.tables import api_keys, calibration_sets

if TYPE_CHECKING:
    from collections.abc import Iterable
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


def _usable_keys() -> Select[tuple[object, ...]]:
    unexpired = or_(api_keys.c.expires_at.is_(None), api_keys.c.expires_at > database_time())
    return select(api_keys).where(api_keys.c.revoked_at.is_(None), unexpired)


class CatalogPart(RepositoryBase):
    """The part of the repository that the calibration and key routes use."""

    def add_calibration_set(self, new: NewCalibrationSet) -> CalibrationSet:
        """Stores the description of a text whose bytes are in the object store; the owner's earlier one is returned
        where the same bytes were stored before, under the name that they got then.
        """
        statement = self._insert(calibration_sets).values(
            id=new_id(IdPrefix.CALIBRATION_SET),
            owner_key_id=new.owner_key_id,
            name=new.name,
            format=new.format,
            sha256=new.sha256,
            size_bytes=new.size_bytes,
            documents=new.documents,
            created_at=database_time(),
        )
        self._connection.execute(statement.on_conflict_do_nothing(index_elements=["owner_key_id", "sha256"]))
        found = select(calibration_sets).where(
            calibration_sets.c.owner_key_id == new.owner_key_id, calibration_sets.c.sha256 == new.sha256
        )
        return calibration_set_from_row(self._connection.execute(found).one())

    def get_calibration_set(self, set_id: str, owner: str | None = None) -> CalibrationSet:
        """Raises NotFoundError where there is no such set, or it is another owner's."""
        statement = owned(select(calibration_sets), calibration_sets, owner).where(calibration_sets.c.id == set_id)
        row = self._connection.execute(statement).one_or_none()
        if row is None:
            raise NotFoundError("calibration set", set_id)
        return calibration_set_from_row(row)

    def list_calibration_sets(self, owner: str | None = None, limit: int = 1000) -> tuple[CalibrationSet, ...]:
        """Returns the newest sets first."""
        statement = owned(select(calibration_sets), calibration_sets, owner)
        newest = statement.order_by(calibration_sets.c.created_at.desc(), calibration_sets.c.id.desc()).limit(limit)
        return tuple(calibration_set_from_row(row) for row in self._connection.execute(newest))

    def add_api_key(self, name: str, scopes: Iterable[str], expires_at: datetime | None = None) -> tuple[ApiKey, str]:
        """Returns the key and its bearer text, which is stored nowhere; raises ValueError on an unknown scope."""
        wanted = frozenset(scopes)
        if not wanted or wanted - API_SCOPES:
            raise ValueError(f"scopes must be some of {', '.join(sorted(API_SCOPES))}; got {sorted(wanted)}")
        key_id, secret = new_id(IdPrefix.API_KEY), secrets.token_hex(SECRET_BYTES)
        values = {
            "id": key_id,
            "name": name,
            "secret_sha256": _hash_secret(secret),
            "scopes": sorted(wanted),
            "created_at": database_time(),
            "expires_at": expires_at,
        }
        row = self._connection.execute(insert(api_keys).values(values).returning(*api_keys.c)).one()
        return api_key_from_row(row), f"{BEARER_PREFIX}_{key_id.removeprefix(_KEY_PREFIX)}_{secret}"

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
        return api_key_from_row(row)

    def any_api_key(self) -> bool:
        """Whether at least one key could be used now."""
        return self._connection.execute(_usable_keys().limit(1)).first() is not None
