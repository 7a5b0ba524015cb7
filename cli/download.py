"""Turns a job's list of files into a folder: each file goes on where an earlier download broke off, and is verified.

A file is named `<name>.part` until its SHA-256 is right; what is complete and right is not fetched again.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from cli.errors import CliError, ExitCode

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cli.client import ServiceClient

CHUNK_BYTES = 1 << 20
PARTIAL_CONTENT = 206
SUMS_FILE = "SHA256SUMS"


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteFile:
    """One file of an artifact. name: relative, with `/`. content: path of its bytes at the service."""

    name: str
    sha256: str
    size_bytes: int
    content: str

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> RemoteFile:
        """Reads one entry of the list; raises CliError where its name would leave the folder."""
        name = PurePosixPath(values["name"])
        if name.is_absolute() or ".." in name.parts or not name.parts:
            raise CliError(ExitCode.FAILED, f"The service lists a file outside of the artifact: {values['name']!r}.")
        return cls(name=str(name), sha256=values["sha256"], size_bytes=values["size_bytes"], content=values["content"])


def fetch_all(
    client: ServiceClient, files: Sequence[RemoteFile], folder: Path, on_bytes: Callable[[int], None]
) -> None:
    """Fetches what the folder lacks; `on_bytes` is told how many more bytes of the artifact are there.

    Raises CliError where a file's hash is wrong: that file is removed, the others stay.
    """
    for file in files:
        target = folder / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists() and target.stat().st_size == file.size_bytes and _digest(target) == file.sha256:
            on_bytes(file.size_bytes)
            continue
        _fetch(client, file, target, on_bytes)


def check_sums(client: ServiceClient, job_id: str, folder: Path, files: Sequence[RemoteFile]) -> int:
    """Verifies every line of the artifact's SHA256SUMS against the files on disk; returns the number of files.

    Raises CliError naming a file that is missing, differs, or is not listed.
    """
    lines = client.text(f"/v1/jobs/{job_id}/{SUMS_FILE}").splitlines()
    sums = {name.removeprefix("*"): digest for digest, _, name in (line.partition(" ") for line in lines if line)}
    sums = {name.strip(): digest for name, digest in sums.items()}
    unlisted = sorted({file.name for file in files} - set(sums) - {SUMS_FILE})
    if unlisted:
        raise _sum_error(unlisted[0], f"is not listed in {SUMS_FILE}")
    for name, digest in sums.items():
        path = folder / name
        if not path.is_file():
            raise _sum_error(name, "is missing")
        if _digest(path) != digest:
            raise _sum_error(name, "does not match its checksum")
    return len(sums)


def _fetch(client: ServiceClient, file: RemoteFile, target: Path, on_bytes: Callable[[int], None]) -> None:
    part = target.with_name(f"{target.name}.part")
    have = part.stat().st_size if part.exists() else 0
    if have > file.size_bytes:
        part.unlink()
        have = 0
    if have < file.size_bytes or not part.exists():
        have = _append(client, file, part, have, on_bytes)
    else:
        on_bytes(have)
    if have != file.size_bytes or _digest(part) != file.sha256:
        part.unlink()
        raise _sum_error(file.name, "arrived damaged and was removed")
    part.replace(target)


def _append(client: ServiceClient, file: RemoteFile, part: Path, have: int, on_bytes: Callable[[int], None]) -> int:
    """Fetches the bytes behind `have` and returns the size on disk; starts over where the service sends everything."""
    # If-Range: a part of other bytes is answered with the whole file instead of a splice.
    headers = {"Range": f"bytes={have}-", "If-Range": f'"{file.sha256}"'} if have else {}
    with client.stream(file.content, headers) as response:
        goes_on = response.status_code == PARTIAL_CONTENT
        if have and not goes_on:
            have = 0
        on_bytes(have)
        with part.open("ab" if goes_on else "wb") as out:
            for chunk in response.iter_raw(CHUNK_BYTES):
                out.write(chunk)
                have += len(chunk)
                on_bytes(len(chunk))
    return have


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sum_error(name: str, what: str) -> CliError:
    return CliError(
        ExitCode.FAILED,
        f"{name} {what}.",
        hint="Run the same download again; complete files are kept.",
        code="checksum_mismatch",
    )
