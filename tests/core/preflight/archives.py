"""Archives made in memory, whole or broken in one chosen way."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

Change = Callable[[tarfile.TarInfo], None]
FORMS = ("tar", "tar.gz", "tar.bz2", "zip")


def folder_files(folder: Path) -> dict[str, bytes]:
    """Returns a folder's files by name, from a name that is not the first of the alphabet."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir(), reverse=True)}


def pack(files: Mapping[str, bytes], form: str = "tar", *, folders: tuple[str, ...] = ()) -> bytes:
    """Returns an archive of regular files and folders."""
    if form == "zip":
        return zip_of(list(files.items()), folders=folders)
    return tar_of([(name, content, None) for name, content in files.items()], form, folders=folders)


def tar_of(
    members: list[tuple[str, bytes, Change | None]], form: str = "tar", *, folders: tuple[str, ...] = ()
) -> bytes:
    """Returns a tar whose headers are changed before they are written."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=f"w:{form.removeprefix('tar').removeprefix('.')}") as tar:
        for name in folders:
            info = tarfile.TarInfo(name)
            info.type = tarfile.DIRTYPE
            tar.addfile(info)
        for name, content, change in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            if change is not None:
                change(info)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def zip_of(
    members: list[tuple[str, bytes]],
    *,
    folders: tuple[str, ...] = (),
    packed: int = zipfile.ZIP_DEFLATED,
    mode: int = 0,
) -> bytes:
    """Returns a zip. mode: of its files, as Unix has it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", packed) as archive:
        for name in folders:
            archive.writestr(f"{name}/", b"")
        for name, content in members:
            info = zipfile.ZipInfo(name)
            info.compress_type = packed
            info.external_attr = mode << 16
            archive.writestr(info, content)
    return buffer.getvalue()


def of_type(kind: bytes, target: str = "config.json") -> Change:
    """Returns a change that makes a member a link, a device or the like."""

    def change(info: tarfile.TarInfo) -> None:
        info.type, info.linkname, info.size = kind, target, 0

    return change
