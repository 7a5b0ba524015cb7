"""Names of devices as they are asked for, one or several; whether they are there is for `core.device` to say."""

from __future__ import annotations

import re
from typing import Final

from core.errors import InvalidConfigError

ALLOWED_DEVICES: Final = "auto, cpu, cuda, cuda:N or mps; several of cuda:N, or of cpu, with commas between them"
_NAME: Final = re.compile(r"auto|cpu|mps|cuda(?::\d+)?")


def split_devices(text: str) -> tuple[str, ...]:
    """Returns the names in `cuda:0,cuda:1`, in order, the first of the device that solves.

    Raises InvalidConfigError, naming `device`, where one is no device's name, or where they cannot work together.
    """
    names = tuple(text.split(","))
    if not all(map(_NAME.fullmatch, names)):
        raise InvalidConfigError("device", text, "no device's name", ALLOWED_DEVICES)
    kinds = {device_kind(name) for name in names}
    if len(names) > 1 and (len(kinds) > 1 or not kinds <= {"cpu", "cuda"}):
        raise InvalidConfigError("device", text, "these devices cannot work together", ALLOWED_DEVICES)
    return names


def device_kind(name: str) -> str:
    """Returns what kind of device a name, or the first of several names, stands for."""
    return name.partition(",")[0].partition(":")[0]
