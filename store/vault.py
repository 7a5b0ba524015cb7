"""Encrypts what must be stored but not read in the database: webhook secrets and hub tokens. And keeps the one secret
of the service, from which the keys of all uses are derived.
"""

from __future__ import annotations

import base64
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from store.errors import SecretKeyRequiredError, SecretUnreadableError

if TYPE_CHECKING:
    from store.settings import StoreSettings

SECRET_FILE = "api-secret"  # noqa: S105 - a file's name
SECRET_BYTES = 32
_PURPOSE = b"bitmill secrets at rest 1"


class Vault:
    """Seals and opens texts with Fernet (AES-128-CBC and HMAC-SHA256) under a key of its own."""

    def __init__(self, secret: bytes | None) -> None:
        """secret: of the service; None: nothing can be sealed or opened."""
        self._fernet = None if secret is None else Fernet(_derived(secret))

    @classmethod
    def from_settings(cls, settings: StoreSettings) -> Vault:
        """Returns a vault that API and workers share.

        A secret that was made for one data directory opens nothing on another machine, so it is taken only where the
        broker says that all processes share that directory.
        """
        if settings.secret_key is None and not settings.broker_url.startswith("filesystem:"):
            return cls(None)
        return cls(service_secret(settings))

    def seal(self, text: str) -> str:
        """Returns the text encrypted; raises SecretKeyRequiredError where the service has no secret to share."""
        return self._usable().encrypt(text.encode()).decode()

    def open(self, sealed: str) -> str:
        """Returns the text; raises SecretUnreadableError where it was sealed with another secret."""
        try:
            return self._usable().decrypt(sealed.encode()).decode()
        except InvalidToken as error:
            raise SecretUnreadableError from error

    def _usable(self) -> Fernet:
        if self._fernet is None:
            raise SecretKeyRequiredError
        return self._fernet


def service_secret(settings: StoreSettings) -> bytes:
    """Returns the configured secret, or the one that the data directory keeps, made on first use."""
    if settings.secret_key is not None:
        return settings.secret_key.get_secret_value().encode()
    return load_or_create_secret(settings.data_dir / SECRET_FILE)


def load_or_create_secret(path: Path) -> bytes:
    """Returns the secret kept at `path`, made on first use and readable by its owner only."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(secrets.token_bytes(SECRET_BYTES))
    try:
        # A link, not a rename: the first of two processes that start together wins, and both read its secret.
        path.hardlink_to(fresh)
    except FileExistsError:
        pass
    finally:
        fresh.unlink()
    return path.read_bytes()


def _derived(secret: bytes) -> bytes:
    key = HKDF(algorithm=SHA256(), length=SECRET_BYTES, salt=None, info=_PURPOSE).derive(secret)
    return base64.urlsafe_b64encode(key)
