"""API keys: what is stored, what proves one, and when it stops, on SQLite and PostgreSQL alike."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta

import pytest

from store.errors import NotFoundError
from store.session import Database


def test_bearer_proves_its_key_and_is_not_stored(database: Database) -> None:
    """The bearer text finds its key; the row holds only the hash of the secret."""
    with database.transaction() as repository:
        assert not repository.any_api_key()
        key, bearer = repository.add_api_key("laptop", ["jobs:read", "jobs:write"])
    with database.reading() as repository:
        assert repository.find_api_key(bearer) == key
        assert repository.any_api_key()
        assert repository.list_api_keys() == (key,)
    prefix, identifier, secret = bearer.split("_")
    assert (prefix, f"key_{identifier}") == ("bm", key.id)
    assert key.secret_sha256 == hashlib.sha256(secret.encode()).hexdigest()
    assert key.scopes == {"jobs:read", "jobs:write"}


@pytest.mark.parametrize("change", ["", "x", "no prefix", "wrong id", "shorter", "non-ascii"])
def test_other_bearers_prove_nothing(database: Database, change: str) -> None:
    """A malformed, unknown or wrong bearer is None, never an error."""
    with database.transaction() as repository:
        _, bearer = repository.add_api_key("laptop", ["admin"])
    wrong = {
        "": "",
        "x": "x" + bearer,
        "no prefix": bearer.removeprefix("bm_"),
        "wrong id": bearer.replace("bm_0", "bm_f", 1),
        "shorter": bearer[:-1],
        "non-ascii": bearer[:-1] + "é",
    }[change]
    with database.reading() as repository:
        assert repository.find_api_key(wrong) is None


def test_expired_and_revoked_keys_are_unusable(database: Database) -> None:
    """A key stops at its expiry by the database's clock, and at once when revoked; the list still shows both."""
    now = datetime.now(UTC)
    with database.transaction() as repository:
        _, expired = repository.add_api_key("old", ["admin"], now - timedelta(minutes=5))
        lasting_key, lasting = repository.add_api_key("new", ["admin"], now + timedelta(minutes=5))
        assert repository.find_api_key(expired) is None
        assert repository.find_api_key(lasting) == lasting_key
        revoked = repository.revoke_api_key(lasting_key.id)
        assert repository.revoke_api_key(lasting_key.id) == revoked
        assert repository.find_api_key(lasting) is None
        assert not repository.any_api_key()
        assert len(repository.list_api_keys()) == 2


def test_unknown_scopes_and_keys_are_refused(database: Database) -> None:
    """A key that could do nothing is not made; a key that is not there cannot be revoked."""
    for scopes in ([], ["jobs:everything"]):
        with pytest.raises(ValueError, match="scopes"), database.transaction() as repository:
            repository.add_api_key("broken", scopes)
    with pytest.raises(NotFoundError), database.transaction() as repository:
        repository.revoke_api_key("key_none")
