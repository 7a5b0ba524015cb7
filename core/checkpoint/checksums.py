"""SHA256SUMS of an artifact folder, in the form that `sha256sum -c` reads; checks a folder against it."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final

from core.checkpoint.durable import file_sha256, replace_file
from core.errors import ArtifactInvalidError

SUMS_FILE: Final = "SHA256SUMS"
_PART: Final = r"(?!\.{1,2}(?:/|$))[^/\\\n]+"
_LINE: Final = re.compile(rf"(?P<sha256>[0-9a-f]{{64}}) [ *](?P<file>{_PART}(?:/{_PART})*)")


def write_sha256sums(folder: Path, known: Mapping[str, str] | None = None) -> Path:
    """Writes SHA256SUMS over every other file of the folder and of those in it, by relative path; returns its path.

    known: hashes that the caller already has, by relative path; the other files are read.
    """
    known = known or {}
    return _write(folder, {name: known.get(name) or file_sha256(folder / name) for name in _files(folder)})


def renew_sha256sums(folder: Path, changed: Collection[str]) -> Path:
    """Hashes the listed files of these relative paths again; every other line stays. Returns the list's path.

    Raises ArtifactInvalidError where the list is absent or malformed, or one of the files is.
    """
    sums = read_sha256sums(folder)
    try:
        return _write(folder, sums | {name: file_sha256(folder / name) for name in sums if name in changed})
    except FileNotFoundError as error:
        raise ArtifactInvalidError(Path(str(error.filename)).name, "listed in SHA256SUMS, but not there.") from error


def _write(folder: Path, sums: Mapping[str, str]) -> Path:
    path = folder / SUMS_FILE
    replace_file(path, ["".join(f"{sums[name]}  {name}\n" for name in sorted(sums)).encode()])
    return path


def read_sha256sums(folder: Path) -> dict[str, str]:
    """Returns SHA-256 by relative path. Raises ArtifactInvalidError where the list is absent or malformed."""
    try:
        text = (folder / SUMS_FILE).read_text()
    except (FileNotFoundError, UnicodeDecodeError) as error:
        raise ArtifactInvalidError(SUMS_FILE, "absent or not text.") from error
    sums: dict[str, str] = {}
    for line in text.splitlines():
        match = _LINE.fullmatch(line)
        if match is None or match["file"] in sums:
            raise ArtifactInvalidError(SUMS_FILE, f"the line {line!r} is not a hash and a new file name.")
        sums[match["file"]] = match["sha256"]
    return sums


def verify_sha256sums(folder: Path) -> dict[str, str]:
    """Checks every file against SHA256SUMS, and that none is unlisted; returns SHA-256 by relative path.

    Raises ArtifactInvalidError, naming the file, where one is absent, changed or not listed.
    """
    sums = read_sha256sums(folder)
    present = _files(folder)
    for name, sha256 in sums.items():
        if name not in present:
            raise ArtifactInvalidError(name, "listed in SHA256SUMS, but not there.")
        if file_sha256(folder / name) != sha256:
            raise ArtifactInvalidError(name, "its bytes do not have the hash in SHA256SUMS.")
    unlisted = sorted(present - set(sums))
    if unlisted:
        raise ArtifactInvalidError(unlisted[0], "not listed in SHA256SUMS.")
    return sums


def _files(folder: Path) -> set[str]:
    """Returns the relative paths of all files but the folder's own list, which a folder inside has too."""
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
    return found - {SUMS_FILE}
