"""Turns the name of a device into a device that is there, or refuses it."""

from __future__ import annotations

import re
from typing import Final

import torch

from core.errors import InvalidConfigError

CPU: Final = torch.device("cpu")
ALLOWED: Final = "auto, cpu, cuda, cuda:N or mps"
_NAME: Final = re.compile(r"(?P<kind>auto|cpu|mps|cuda(?::(?P<number>\d+))?)")


def find_device(name: str) -> torch.device:
    """Returns the device of that name; "auto" is the first CUDA device where there is one, else the CPU.

    Raises InvalidConfigError, naming `device`, where the name is none or torch cannot use such a device here.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise InvalidConfigError("device", name, "no device's name", ALLOWED)
    if name == "mps":
        return _mps()
    if name.startswith("cuda"):
        return _cuda(name, int(match["number"] or 0))
    return torch.device("cuda", 0) if name == "auto" and torch.cuda.is_available() else CPU


def _mps() -> torch.device:
    if not torch.backends.mps.is_available():
        raise InvalidConfigError("device", "mps", "torch finds no Metal device here", _there())
    return torch.device("mps")


def _cuda(name: str, number: int) -> torch.device:
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if number >= count:
        raise InvalidConfigError("device", name, f"torch finds {count} CUDA devices here", _there())
    return torch.device("cuda", number)


def _there() -> str:
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return ", ".join(["auto", "cpu", *(f"cuda:{number}" for number in range(count))])
