"""The build backend of the wheel: setuptools, after the page has been built into it (PEP 517, PEP 660)."""

from __future__ import annotations

from typing import Any

import dashboard
from setuptools import build_meta
from setuptools.build_meta import (
    get_requires_for_build_sdist,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]


def get_requires_for_build_wheel(config_settings: Any = None) -> list[str]:  # noqa: ANN401 - as PEP 517 has it
    """Returns Node's package too, where the machine has none."""
    return [*build_meta.get_requires_for_build_wheel(config_settings), *dashboard.needed_packages()]


def get_requires_for_build_editable(config_settings: Any = None) -> list[str]:  # noqa: ANN401 - as PEP 660 has it
    """Returns Node's package too, where the machine has none."""
    return [*build_meta.get_requires_for_build_editable(config_settings), *dashboard.needed_packages()]


def build_wheel(wheel_directory: str, config_settings: Any = None, metadata_directory: str | None = None) -> str:  # noqa: ANN401
    """Builds the page, then the wheel that carries it."""
    dashboard.build()
    return build_meta.build_wheel(wheel_directory, config_settings, metadata_directory)


def build_editable(wheel_directory: str, config_settings: Any = None, metadata_directory: str | None = None) -> str:  # noqa: ANN401
    """Builds the page, then the wheel that points here."""
    dashboard.build()
    return build_meta.build_editable(wheel_directory, config_settings, metadata_directory)


def build_sdist(sdist_directory: str, config_settings: Any = None) -> str:  # noqa: ANN401 - as PEP 517 has it
    """Packs the sources, among them those of the page."""
    return build_meta.build_sdist(sdist_directory, config_settings)
