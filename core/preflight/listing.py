"""Looks through the allowed roots for model folders that a job may name: by config.json alone, no weight is opened.

Bounded: a few levels, so many entries. Links are not followed, hidden folders not entered. Standard library only.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from core.errors import ModelRefusedError
from core.preflight.model_config import CONFIG_FILE, read_config
from core.preflight.model_files import INDEX_FILE, SINGLE_FILE

DEPTH: Final = 3
"""Levels below a root; a cache of the hub keeps its files deeper than that, and they are fetched by their hub id."""
ENTRIES_MAX: Final = 20_000
MODELS_MAX: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundModel:
    """root: its name. path: below the root, as a job names it. bytes: of the safetensors files in it."""

    root: str
    path: str
    model_type: str
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """truncated: not everything was looked at, because there is too much of it."""

    models: tuple[FoundModel, ...]
    truncated: bool


def list_models(roots: Mapping[str, Path]) -> Listing:
    """Returns the float decoders under the roots by path; what a submit would refuse by its config is left out."""
    found: list[FoundModel] = []
    left = ENTRIES_MAX
    for name, root in roots.items():
        for entries, folder in _folders(root):
            left -= entries
            model = None if folder is None else _model(name, root, folder)
            if model is not None:
                found.append(model)
            if left <= 0 or len(found) >= MODELS_MAX:
                return Listing(models=_sorted(found), truncated=True)
    return Listing(models=_sorted(found), truncated=False)


def _sorted(found: list[FoundModel]) -> tuple[FoundModel, ...]:
    return tuple(sorted(found, key=lambda model: (model.path.lower(), model.root)))


def _folders(root: Path) -> Iterator[tuple[int, Path | None]]:
    """Yields for each folder that is looked into how many entries it has, and itself where it holds a config.json."""
    waiting = deque([(root, 0)])
    while waiting:
        folder, depth = waiting.popleft()
        try:
            with os.scandir(folder) as entries:
                listed = sorted(entries, key=lambda entry: entry.name)
        except OSError:
            # Gone meanwhile, or not ours to read: there is nothing in it that a job could name.
            continue
        has_config = any(entry.name == CONFIG_FILE for entry in listed)
        yield len(listed), folder if has_config else None
        if not has_config and depth < DEPTH:
            below = [entry for entry in listed if not entry.name.startswith(".")]
            waiting += [(Path(entry.path), depth + 1) for entry in below if entry.is_dir(follow_symlinks=False)]


def _model(root_name: str, root: Path, folder: Path) -> FoundModel | None:
    try:
        config = read_config(folder)
        if not any((folder / name).is_file() for name in (SINGLE_FILE, INDEX_FILE)):
            return None
        size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    except (ModelRefusedError, OSError):
        return None
    path = folder.relative_to(root).as_posix()
    return FoundModel(root=root_name, path=path, model_type=config.model_type, bytes=size)
