"""Maps a user's model path onto the allowed roots, after every symlink; what leads outside is refused.

Outside and absent get the same answer, so that nobody can probe for files. Standard library only.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from core.errors import ModelProblem, ModelRefusedError

if TYPE_CHECKING:
    from collections.abc import Mapping


def resolve_model_path(path: str | Path, roots: Mapping[str, Path]) -> tuple[str, Path]:
    """Returns the name of the root and the resolved model folder.

    path: absolute, or relative to a root, or opening with a root's name. roots: name to folder. Raises
    ModelRefusedError (NOT_FOUND) where no folder of that name lies in a root after symlinks and `..` are resolved, or
    where a link in the folder leads out of all roots (a hub cache links its files within the root).
    """
    resolved_roots = {name: root.resolve() for name, root in roots.items()}
    for candidate in _candidates(path, resolved_roots):
        folder = _resolve(candidate)
        inside = [name for name, root in resolved_roots.items() if folder is not None and folder.is_relative_to(root)]
        if folder is not None and inside and folder.is_dir():
            _refuse_foreign_links(folder, resolved_roots)
            return max(inside, key=lambda name: len(resolved_roots[name].parts)), folder
    raise _not_found(path, roots)


def _candidates(path: str | Path, roots: Mapping[str, Path]) -> list[Path]:
    given = Path(path)
    if given.is_absolute():
        return [given]
    by_name = [root.joinpath(*given.parts[1:]) for name, root in roots.items() if given.parts[:1] == (name,)]
    return by_name + [root / given for root in roots.values()]


def _resolve(candidate: Path) -> Path | None:
    """Returns the path behind all links; None where there is none (a loop, a NUL in the name, no permission)."""
    try:
        return candidate.resolve(strict=True)
    except (OSError, ValueError, RuntimeError):
        return None


def _refuse_foreign_links(folder: Path, roots: Mapping[str, Path]) -> None:
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            entry = Path(parent) / name
            if not entry.is_symlink():
                continue
            behind = _resolve(entry)
            if behind is None or not any(behind.is_relative_to(root) for root in roots.values()):
                raise ModelRefusedError(
                    ModelProblem.NOT_FOUND,
                    f"The link {entry.relative_to(folder)} in the model folder leads out of the model roots.",
                    "Copy the file into the folder.",
                )


def _not_found(path: str | Path, roots: Mapping[str, Path]) -> ModelRefusedError:
    return ModelRefusedError(
        ModelProblem.NOT_FOUND,
        f"There is no model folder {str(path)!r} under the model roots.",
        f"Put it under one of the roots ({', '.join(sorted(roots)) or 'none is set'}), or add a root to "
        "BITMILL_MODEL_ROOTS.",
    )
