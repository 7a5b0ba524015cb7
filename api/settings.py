"""Reads where the API listens and what it accepts from BITMILL_* variables, once; the store's settings come with it."""

from __future__ import annotations

import ipaddress
from functools import cache

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from store.settings import StoreSettings

MEBIBYTE = 1024 * 1024
GIBIBYTE = 1024 * MEBIBYTE


class ApiSettings(StoreSettings):
    """host, port: where the server listens; the launcher hands the same values to uvicorn.

    max_body_bytes: of a JSON body. max_calibration_bytes: of one uploaded text. upload_seconds: for one whole upload
    of a text. max_model_bytes: of one uploaded archive, and of what it unpacks to. model_upload_seconds: for one.
    max_streams: live streams at a time; each takes a file descriptor. stream_poll_seconds: between two looks for
    events, shared by all streams. stream_heartbeat_seconds: of silence before a sign of life. stream_send_seconds:
    a client that takes nothing for this long is dropped. stream_life_seconds: then the client connects again.
    """

    model_config = SettingsConfigDict(env_prefix="BITMILL_", frozen=True, extra="ignore")

    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65_535)
    max_body_bytes: int = Field(default=MEBIBYTE, ge=1024)
    max_calibration_bytes: int = Field(default=256 * MEBIBYTE, ge=1024)
    upload_seconds: float = Field(default=600.0, gt=0)
    max_model_bytes: int = Field(default=64 * GIBIBYTE, ge=1024)
    model_upload_seconds: float = Field(default=21_600.0, gt=0)
    max_streams: int = Field(default=2000, ge=1)
    stream_poll_seconds: float = Field(default=0.15, gt=0)
    stream_heartbeat_seconds: float = Field(default=15.0, gt=0)
    stream_send_seconds: float = Field(default=20.0, gt=0)
    stream_life_seconds: float = Field(default=900.0, gt=0)

    @property
    def loopback(self) -> bool:
        """Whether only programs on this machine can connect."""
        return is_loopback(self.host)


@cache
def is_loopback(host: str) -> bool:
    """Returns whether a bound address is a loopback one; any name but `localhost` counts as reachable."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def settings_from_env() -> ApiSettings:
    """Returns the settings as the environment says; raises pydantic.ValidationError naming each wrong field."""
    return ApiSettings()
