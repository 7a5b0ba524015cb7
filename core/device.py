"""Turns names of devices into devices that are there, or refuses them."""

from __future__ import annotations

from typing import Final

import torch

from core.configs.devices import device_kind, split_devices
from core.errors import InvalidConfigError

CPU: Final = torch.device("cpu")


def find_devices(names: str) -> tuple[torch.device, ...]:
    """Returns the devices of those names, one or several with commas between them.

    "auto" is the first CUDA device where there is one, else the CPU. Raises InvalidConfigError, naming `device`, where
    a name is none, torch cannot use such a device here, or a CUDA device is named twice.
    """
    devices = tuple(_find(name) for name in split_devices(names))
    if devices[0].type == "cuda" and len({*devices}) < len(devices):
        raise InvalidConfigError("device", names, "one of them is named twice", _there())
    return devices


def _find(name: str) -> torch.device:
    match device_kind(name):
        case "mps":
            return _mps()
        case "cuda":
            return _cuda(name, int(name.partition(":")[2] or 0))
        case "auto" if torch.cuda.is_available():
            return torch.device("cuda", 0)
    return CPU


def free_memory(device: torch.device) -> int:
    """Returns the bytes that are free on a CUDA device."""
    free: int = torch.cuda.mem_get_info(device)[0]
    return free


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
