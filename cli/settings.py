"""Reads the environment for the commands; the only module of cli that does."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from pydantic import ByteSize, TypeAdapter, ValidationError

from cli.errors import CliError, ExitCode
from core.calibration.hub import DEFAULT_ENDPOINT
from store.settings import settings_from_env

DEFAULT_URL = "http://127.0.0.1:8080"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSettings:
    """Where the service is (BITMILL_URL) and with which key it is asked (BITMILL_API_KEY)."""

    url: str
    api_key: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class HubSettings:
    """Where data sets come from (BITMILL_HUB_ENDPOINT, BITMILL_HUB_TOKEN) and where they are kept."""

    endpoint: str
    token: str | None
    cache_dir: Path


def hub_settings() -> HubSettings:
    """Returns the settings for the hub; the cache is the worker's."""
    return HubSettings(
        endpoint=os.environ.get("BITMILL_HUB_ENDPOINT") or DEFAULT_ENDPOINT,
        token=os.environ.get("BITMILL_HUB_TOKEN") or None,
        cache_dir=settings_from_env().cache_dir / "hub",
    )


def cache_dir() -> Path:
    """Returns where what can be made again is kept."""
    return settings_from_env().cache_dir


def activation_memory_bytes(given: str | None) -> int | None:
    """Returns a run's memory for activations: what was given, else BITMILL_ACTIVATION_MEMORY; None without either.

    Raises CliError where it is no size.
    """
    text = given or os.environ.get("BITMILL_ACTIVATION_MEMORY")
    if not text:
        return None
    try:
        return int(TypeAdapter(ByteSize).validate_python(text))
    except ValidationError as error:
        raise CliError(
            ExitCode.USAGE,
            f"{text!r} is no size of memory.",
            hint="Give bytes, or a number with kB, MB, GB, KiB, MiB or GiB, such as 2GB.",
            code="invalid_size",
            field="--activation-memory",
        ) from error


def client_settings(url: str | None = None, api_key: str | None = None) -> ClientSettings:
    """Returns the settings for a client; what was given on the command line wins."""
    return ClientSettings(
        url=(url or os.environ.get("BITMILL_URL") or DEFAULT_URL).rstrip("/"),
        api_key=api_key or os.environ.get("BITMILL_API_KEY") or None,
    )


def service_environment(**overrides: str) -> dict[str, str]:
    """Returns this process's environment with BITMILL_<NAME> set for each override: a child service starts with it."""
    return {**os.environ, **{f"BITMILL_{name.upper()}": value for name, value in overrides.items()}}
