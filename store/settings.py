"""Reads where things lie (database, broker, artifacts, models) from BITMILL_* variables, once.

The only module of this package that looks at the environment. Credentials for S3 stay in the AWS_* variables and
profiles, which the storage library reads by its own documented chain.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from store.wake_ups import QUEUE_CLASS

BROKER_SCHEMES = ("filesystem", "redis", "rediss")
DATABASE_SCHEMES = ("sqlite", "postgresql+psycopg")
ARTIFACT_SCHEMES = ("file", "s3")
OTLP_SCHEMES = ("http", "https")


@dataclass(frozen=True, slots=True)
class ModelRoot:
    """A folder under which local models are accepted. name: how answers show it instead of its path."""

    name: str
    path: Path


def _parse_root(text: str) -> ModelRoot:
    """Reads `path` or `name=path`."""
    name, separator, path = text.partition("=")
    folder = Path(path if separator else name).expanduser().absolute()
    return ModelRoot(name=name if separator else folder.name, path=folder)


def _parse_roots(text: str) -> tuple[ModelRoot, ...]:
    return tuple(_parse_root(part) for part in text.split(os.pathsep) if part)


def _default_roots(values: dict[str, Any]) -> tuple[ModelRoot, ...]:
    # Before validation of the folders failed there is nothing to default from; their own error is reported.
    return tuple(ModelRoot(name, values[f"{name}_dir"]) for name in ("cache", "data") if f"{name}_dir" in values)


def _require_scheme(field: str, url: str, schemes: tuple[str, ...]) -> str:
    if urlsplit(url).scheme not in schemes:
        allowed = ", ".join(f"{scheme}://" for scheme in schemes)
        raise ValueError(f"{field} must start with one of {allowed}")
    return url


class StoreSettings(BaseSettings):
    """data_dir: everything that must survive; cache_dir: what can be fetched again.

    broker_url: `filesystem://` keeps messages in `broker_dir`; Redis is the other choice. model_roots: `path` or
    `name=path`, separated like PATH. s3_endpoint: of an S3-compatible server, None for AWS. queue_classes: separated
    by commas; a worker serves one or more of them. otlp_endpoint: of an OpenTelemetry collector (OTLP over HTTP), such
    as http://localhost:4318; None sends no traces. secret_key: signs page tokens and encrypts stored secrets; every API
    process and every worker needs the same one. None: one is made and kept in the data directory.
    webhooks_to_private: lets webhooks go to plain http and to addresses that are not public, for closed networks.
    """

    model_config = SettingsConfigDict(env_prefix="BITMILL_", frozen=True, extra="ignore")

    data_dir: Path = Path("~/.local/share/bitmill")
    cache_dir: Path = Path("~/.cache/bitmill")
    database_url: str = Field(default_factory=lambda values: f"sqlite:///{values.get('data_dir')}/bitmill.db")
    broker_url: str = "filesystem://"
    artifacts_url: str = Field(default_factory=lambda values: f"file://{values.get('data_dir')}/artifacts")
    s3_endpoint: str | None = None
    otlp_endpoint: str | None = None
    model_roots: Annotated[tuple[ModelRoot, ...], NoDecode] = Field(default_factory=_default_roots)
    queue_classes: Annotated[tuple[str, ...], NoDecode] = ("default",)
    secret_key: SecretStr | None = Field(default=None, min_length=32)
    webhooks_to_private: bool = False

    @field_validator("data_dir", "cache_dir", mode="after")
    @classmethod
    def _absolute(cls, folder: Path) -> Path:
        return folder.expanduser().absolute()

    @field_validator("model_roots", mode="before")
    @classmethod
    def _read_roots(cls, value: object) -> object:
        return _parse_roots(value) if isinstance(value, str) else value

    @field_validator("secret_key", mode="before")
    @classmethod
    def _read_secret(cls, value: object) -> object:
        # A variable that is set to nothing, as compose files do, is none.
        return None if value == "" else value

    @field_validator("queue_classes", mode="before")
    @classmethod
    def _read_queue_classes(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _check(self) -> Self:
        _require_scheme("database_url", self.database_url, DATABASE_SCHEMES)
        _require_scheme("broker_url", self.broker_url, BROKER_SCHEMES)
        _require_scheme("artifacts_url", self.artifacts_url, ARTIFACT_SCHEMES)
        if self.otlp_endpoint is not None:
            _require_scheme("otlp_endpoint", self.otlp_endpoint, OTLP_SCHEMES)
        names = [root.name for root in self.model_roots]
        if len(set(names)) != len(names):
            raise ValueError("model_roots: two roots have one name; give one of them as name=path")
        if not all(re.fullmatch(QUEUE_CLASS, name) for name in self.queue_classes) or not self.queue_classes:
            raise ValueError("queue_classes: a name may hold lower-case letters, digits, - and _ only")
        return self

    @property
    def broker_dir(self) -> Path:
        """Where the filesystem broker keeps its messages: the URL's path, or a folder of the data directory."""
        path = urlsplit(self.broker_url).path
        return Path(path) if path.strip("/") else self.data_dir / "broker"


def settings_from_env() -> StoreSettings:
    """Returns the settings as the environment says; raises pydantic.ValidationError naming each wrong field."""
    return StoreSettings()
