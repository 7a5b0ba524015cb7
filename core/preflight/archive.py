"""Reads a model out of a tar or zip archive as streams: which members are its files, and what refuses the archive.

Nothing is unpacked, and no name of a member becomes a path: the model's files are known by base names that the engine
reads. All members are judged, by their headers, before the first byte of one is handed out. Standard library only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO, Final, NoReturn, Self

from core.errors import ModelProblem, ModelRefusedError
from core.preflight.archive_members import Container, Member, MemberKind, open_container, unreadable
from core.preflight.model_config import CONFIG_FILE
from core.preflight.model_files import FORBIDDEN_SUFFIXES, is_wanted

CHUNK_BYTES: Final = 1 << 20
MEMBERS_MAX: Final = 10_000
RATIO_MAX: Final = 100
"""Unpacked bytes for one of the archive: trained weights hardly shrink, a decompression bomb does by a thousand."""
RATIO_FREE_BYTES: Final = 16 << 20
NAME_MAX_BYTES: Final = 255

PACKING = "Pack one model folder's files at the top of the archive or below one common folder."


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelMember:
    """One file of the model. name: a base name. member: how the archive calls it, for messages."""

    name: str
    member: str
    size_bytes: int


class ModelArchive:
    """An archive that holds one model. Use it as a context."""

    def __init__(self, file: IO[bytes], *, max_bytes: int) -> None:
        """file: can be read from any place; it stays open. max_bytes: of all members together, unpacked.

        Raises ModelRefusedError naming the member: what is no archive or a torn one, encrypted members, links and
        devices, names that lead somewhere, code and pickles, two members of one name, no config.json, too much.
        """
        size_bytes = file.seek(0, 2)
        self._container: Container = open_container(file)
        try:
            self.files = _model_files(self._container, size_bytes, max_bytes)
        except BaseException:
            self._container.close()
            raise

    def __enter__(self) -> Self:
        """Returns itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Lets go of the archive; the file stays open."""
        self._container.close()

    @property
    def total_bytes(self) -> int:
        """Returns the bytes of the model's files."""
        return sum(file.size_bytes for file in self.files)

    def read(self) -> Iterator[tuple[ModelMember, Iterator[bytes]]]:
        """Yields the model's files in the archive's order with their bytes in pieces; it may be called again.

        What is not read of a file is passed over. Raises ModelRefusedError where the bytes are not those that were
        announced.
        """
        wanted = {file.member: file for file in self.files}
        for member in self._container.members():
            if member.kind is MemberKind.FILE and member.name in wanted:
                file = wanted[member.name]
                yield file, _pieces(self._container, member)


def _pieces(container: Container, member: Member) -> Iterator[bytes]:
    left = member.size_bytes
    with unreadable(repr(member.name)), container.open(member) as stream:
        while piece := stream.read(CHUNK_BYTES):
            left -= len(piece)
            if left < 0:
                break
            yield piece
    if left:
        _invalid(f"{member.name!r} has other than the {member.size_bytes:,} bytes that are announced.")


def _model_files(container: Container, archive_bytes: int, max_bytes: int) -> tuple[ModelMember, ...]:
    found = [(_parts(member), member) for member in _counted(container, archive_bytes, max_bytes)]
    files = [(parts, member) for parts, member in found if member.kind is MemberKind.FILE]
    _refuse_duplicates(files)
    shown = [(parts, member) for parts, member in files if not any(_hidden(part) for part in parts)]
    top = _top({parts for parts, _ in shown})
    inside = [(parts[-1], member) for parts, member in shown if parts[:-1] == top]
    if not any(name == CONFIG_FILE for name, _ in inside):
        raise ModelRefusedError(
            ModelProblem.CONFIG_MISSING, f"The archive has no {CONFIG_FILE} in {'/'.join(top) or 'its top'}.", PACKING
        )
    return tuple(
        ModelMember(name=name, member=member.name, size_bytes=member.size_bytes)
        for name, member in inside
        if is_wanted(name)
    )


def _counted(container: Container, archive_bytes: int, max_bytes: int) -> Iterator[Member]:
    total = 0
    for number, member in enumerate(container.members(), 1):
        if number > MEMBERS_MAX:
            _unsafe(f"The archive has more than {MEMBERS_MAX:,} members.")
        total += member.size_bytes
        if total > max_bytes:
            raise ModelRefusedError(
                ModelProblem.ARCHIVE_TOO_LARGE,
                f"With {member.name!r} the archive unpacks to {total:,} bytes; {max_bytes:,} are taken.",
                "Leave out what is no part of the model, or put the folder under a model root.",
            )
        if total > RATIO_FREE_BYTES + RATIO_MAX * archive_bytes:
            _unsafe(f"With {member.name!r} the archive unpacks to more than {RATIO_MAX} times its own size.")
        yield member


def _parts(member: Member) -> tuple[str, ...]:
    """Returns a name's parts; raises ModelRefusedError for what is no file or folder, or leads anywhere."""
    name = member.name
    if member.kind is MemberKind.OTHER:
        _unsafe(f"{name!r} is a link, a device or a sparse file.")
    path = PurePosixPath(name)
    if member.kind is MemberKind.FILE and not path.parts:
        _unsafe("A member has no name.")
    if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name or not name.isprintable():
        _unsafe(f"{name!r} is no plain relative name.")
    if any(len(part.encode()) > NAME_MAX_BYTES for part in path.parts):
        _unsafe(f"{name[:50]!r}... has a name of more than {NAME_MAX_BYTES} bytes.")
    if member.kind is MemberKind.FILE and path.suffix.lower() in FORBIDDEN_SUFFIXES:
        raise ModelRefusedError(
            ModelProblem.FORBIDDEN_FILE,
            f"The archive holds {name}: code and pickled weights are refused.",
            "Pack safetensors, JSON and tokenizer files only.",
        )
    return path.parts


def _refuse_duplicates(files: list[tuple[tuple[str, ...], Member]]) -> None:
    seen: set[tuple[str, ...]] = set()
    for parts, member in files:
        if parts in seen:
            _unsafe(f"Two members are named {member.name!r}.")
        seen.add(parts)


def _hidden(part: str) -> bool:
    """Whether a file or folder is a system's own: what macOS adds, a cache, a repository."""
    return part.startswith(".") or part == "__MACOSX"


def _top(files: set[tuple[str, ...]]) -> tuple[str, ...]:
    """Returns the folder that the model lies in: the archive's top, or the one folder that holds all."""
    tops = {parts[0] for parts in files}
    if len(tops) != 1 or any(len(parts) == 1 for parts in files):
        if all(len(parts) > 1 for parts in files) and tops:
            _invalid(f"The archive holds several folders ({', '.join(sorted(tops)[:3])}).", PACKING)
        return ()
    return (tops.pop(),)


def _invalid(detail: str, hint: str = "Pack and upload it again.") -> NoReturn:
    raise ModelRefusedError(ModelProblem.ARCHIVE_INVALID, detail, hint)


def _unsafe(detail: str) -> NoReturn:
    raise ModelRefusedError(
        ModelProblem.ARCHIVE_UNSAFE, detail, f"{PACKING} Plain files only, without links (`tar --dereference`)."
    )
