"""What a tar or zip archive lists, and the bytes of each member; it judges nothing but whether they can be read.

Tars are plain or packed with gzip or bzip2; zips stored or deflated. Other packings let the archive choose how much
memory its reader takes. Standard library only.
"""

from __future__ import annotations

import bz2
import gzip
import io
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum, auto
from typing import IO, Any, Final, NoReturn, Protocol

from core.errors import ModelProblem, ModelRefusedError

READ_BYTES: Final = 1 << 20
EXTENSION_MAX_BYTES: Final = 1 << 20
"""Of a tar header that only says more of the next member, which tarfile reads whole."""
DIRECTORY_MAX_BYTES: Final = 16 << 20
"""Of a zip's list of members, which zipfile reads whole."""
TAIL_MAX_BYTES: Final = 16 << 20
"""What a packed tar may have behind its last member: zeros up to a record."""

TAKEN = "Upload a whole .tar, .tar.gz, .tar.bz2 or .zip (stored or deflated)."
EXTENSIONS = frozenset(
    {
        tarfile.XHDTYPE,
        tarfile.XGLTYPE,
        tarfile.SOLARIS_XHDTYPE,
        tarfile.GNUTYPE_LONGNAME,
        tarfile.GNUTYPE_LONGLINK,
    }
)
UNREADABLE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    OSError,
    ValueError,
    ArithmeticError,
    LookupError,
    NotImplementedError,
    RecursionError,
)
"""What the readers of the standard library raise on bytes that are none of theirs."""


class MemberKind(Enum):
    """What a member is; OTHER is what no model has."""

    FILE = auto()
    FOLDER = auto()
    OTHER = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One entry. name: as the archive has it. size_bytes: unpacked, as announced. entry: the library's own object."""

    name: str
    kind: MemberKind
    size_bytes: int
    entry: Any


class Container(Protocol):
    """An open archive."""

    def members(self) -> Iterator[Member]:
        """Yields every member from the first; raises ModelRefusedError where that cannot be read."""

    def open(self, member: Member) -> IO[bytes]:
        """Opens the member that `members` has just yielded."""

    def close(self) -> None:
        """Lets go of it; the file beneath stays open."""


def open_container(file: IO[bytes]) -> Container:
    """Opens an archive by its first bytes; raises ModelRefusedError on what is none."""
    file.seek(0)
    start = file.read(6)
    file.seek(0)
    if start.startswith((b"PK\3\4", b"PK\5\6")):
        with unreadable("The archive"):
            return ZipContainer(file)
    if start.startswith((b"\xfd7zXZ", b"\x28\xb5\x2f\xfd", b"7z\xbc\xaf", b"Rar!")):
        _refuse("The archive is packed in a way that is not taken.")
    return TarContainer(file, _unpacker(start))


@contextmanager
def unreadable(what: str) -> Iterator[None]:
    """Turns what the libraries raise into the refusal of an archive. what: is named in it."""
    try:
        yield
    except UNREADABLE as error:
        reason = str(error) or type(error).__name__
        raise ModelRefusedError(ModelProblem.ARCHIVE_INVALID, f"{what} cannot be read: {reason}.", TAKEN) from error


def _refuse(detail: str) -> NoReturn:
    raise ModelRefusedError(ModelProblem.ARCHIVE_INVALID, detail, TAKEN)


class _Header(tarfile.TarInfo):
    """A header that must be whole, and may not say too much of the next one, which would be read into memory."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Header:
        """Reads one block. Only zeros end an archive; tarfile takes anything that is no header for its end."""
        ends = len(buf) == tarfile.BLOCKSIZE and not any(buf)
        try:
            header = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if ends:
                raise
            raise tarfile.ReadError(f"no end mark follows the last member that can be read ({error})") from error
        if header.size < 0 or (header.type in EXTENSIONS and header.size > EXTENSION_MAX_BYTES):
            raise tarfile.ReadError(f"a header announces {header.size:,} bytes")
        return header


def _unpacker(start: bytes) -> type[gzip.GzipFile | bz2.BZ2File] | None:
    if start.startswith(b"\x1f\x8b"):
        return gzip.GzipFile
    return bz2.BZ2File if start.startswith(b"BZh") else None


class TarContainer:
    """A tar. A plain one is walked by its headers; a packed one is unpacked anew for every walk."""

    def __init__(self, file: IO[bytes], unpacker: type[gzip.GzipFile | bz2.BZ2File] | None) -> None:
        self._file = file
        self._unpacker = unpacker
        self._tar: tarfile.TarFile | None = None
        self._unpacked: IO[bytes] = file

    def members(self) -> Iterator[Member]:
        """Yields every member from the first, and looks whether the archive ends as it should."""
        self.close()
        with unreadable("The archive"):
            tar = self._open()
        while (entry := self._next(tar)) is not None:
            yield Member(name=entry.name, kind=_tar_kind(entry), size_bytes=entry.size, entry=entry)
        with unreadable("The archive"):
            self._check_tail()

    def open(self, member: Member) -> IO[bytes]:
        """Opens a member's bytes."""
        stream = None if self._tar is None else self._tar.extractfile(member.entry)
        if stream is None:
            raise ValueError("it has no bytes")
        return stream

    def close(self) -> None:
        """Ends the walk."""
        if self._tar is not None:
            self._tar.close()
        if self._unpacked is not self._file:
            self._unpacked.close()
        self._tar, self._unpacked = None, self._file

    def _open(self) -> tarfile.TarFile:
        self._file.seek(0)
        if self._unpacker is None:
            self._tar = tarfile.open(fileobj=self._file, mode="r:", tarinfo=_Header)  # noqa: SIM115 - see close
            return self._tar
        self._unpacked = _unpack(self._unpacker, self._file)
        self._tar = tarfile.open(  # noqa: SIM115 - see close
            fileobj=self._unpacked, mode="r|", bufsize=READ_BYTES, tarinfo=_Header
        )
        return self._tar

    def _next(self, tar: tarfile.TarFile) -> tarfile.TarInfo | None:
        with unreadable("The archive"):
            entry = tar.next()
            if entry is not None and entry.size < 0:
                raise tarfile.ReadError("a member announces less than no bytes")
            return entry

    def _check_tail(self) -> None:
        """Reads a packed archive to its end, where its checksum stands."""
        tail = 0
        while self._unpacked is not self._file and (piece := self._unpacked.read(READ_BYTES)):
            tail += len(piece)
            if tail > TAIL_MAX_BYTES:
                raise tarfile.ReadError(f"more than {TAIL_MAX_BYTES:,} bytes follow the last member")


def _unpack(unpacker: type[gzip.GzipFile | bz2.BZ2File], file: IO[bytes]) -> IO[bytes]:
    unpacked: Any = gzip.GzipFile(fileobj=file) if unpacker is gzip.GzipFile else bz2.BZ2File(file)
    stream: IO[bytes] = unpacked
    return stream


def _tar_kind(entry: tarfile.TarInfo) -> MemberKind:
    if entry.isdir():
        return MemberKind.FOLDER
    return (
        MemberKind.FILE
        if entry.type in {tarfile.REGTYPE, tarfile.AREGTYPE} and not entry.issparse()
        else MemberKind.OTHER
    )


class _Measured(io.RawIOBase):
    """A file that is never read in one piece larger than a zip's list of members may be."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__()
        self._file = file
        self._size_bytes = file.seek(0, io.SEEK_END)

    def seekable(self) -> bool:
        """It is."""
        return True

    def readable(self) -> bool:
        """It is."""
        return True

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Moves in the file beneath."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Where the file beneath is."""
        return self._file.tell()

    def read(self, size: int = -1, /) -> bytes:
        """Reads from the file beneath; raises BadZipFile where that would be too much at once."""
        left = max(self._size_bytes - self._file.tell(), 0)
        if (left if size < 0 else min(size, left)) > DIRECTORY_MAX_BYTES:
            raise zipfile.BadZipFile(f"its list of members is larger than {DIRECTORY_MAX_BYTES:,} bytes")
        return self._file.read(size)


class ZipContainer:
    """A zip; its list of members stands at its end."""

    def __init__(self, file: IO[bytes]) -> None:
        measured: Any = _Measured(file)
        self._zip = zipfile.ZipFile(measured)

    def members(self) -> Iterator[Member]:
        """Yields every member in the order of the list."""
        for entry in self._zip.infolist():
            if entry.flag_bits & 0x1:
                _refuse(f"{entry.filename!r} is encrypted.")
            if entry.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
                _refuse(f"{entry.filename!r} is packed in a way that is not taken.")
            yield Member(name=entry.orig_filename, kind=_zip_kind(entry), size_bytes=entry.file_size, entry=entry)

    def open(self, member: Member) -> IO[bytes]:
        """Opens a member's bytes, whose checksum is compared at their end."""
        return self._zip.open(member.entry)

    def close(self) -> None:
        """Lets go of it."""
        self._zip.close()


def _zip_kind(entry: zipfile.ZipInfo) -> MemberKind:
    """A zip that was made on Unix has a file's mode in the upper half of its attributes."""
    mode = stat.S_IFMT(entry.external_attr >> 16)
    if mode not in {0, stat.S_IFREG, stat.S_IFDIR}:
        return MemberKind.OTHER
    return MemberKind.FOLDER if entry.is_dir() else MemberKind.FILE
