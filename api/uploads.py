"""Writes one upload to a temporary file while it arrives: capped, timed, and, where it is a text, without binary bytes.

What it holds and whether that is usable is the business of `core`.
"""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile, TemporaryFile
from typing import IO

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request

from api.errors import TooLargeError, UploadBrokenError
from api.multipart import UploadForm
from api.settings import ApiSettings
from core.errors import CalibrationProblem, CalibrationRefusedError, InsufficientResourcesError

NAME_MAX_CHARS = 200
DEFAULT_NAME = "upload"
DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """One received file. name: as the client called it, printable, without any folder."""

    file: IO[bytes]
    name: str

    @property
    def path(self) -> Path:
        """Returns where the file lies, if it has a name there."""
        return Path(self.file.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rules:
    max_bytes: int
    seconds: float
    text: bool


def upload_folder(settings: ApiSettings) -> Path:
    """Returns where files lie while they arrive and are looked at."""
    return settings.data_dir / "uploads"


def announced_bytes(request: Request) -> int:
    """Returns the length of a body, 0 where the client does not say."""
    length = request.headers.get("content-length", "0")
    return int(length) if length.isdigit() else 0


@asynccontextmanager
async def receive_text(request: Request, settings: ApiSettings) -> AsyncIterator[Upload]:
    """Receives the text of a multipart body into a file that is gone after the block.

    Raises InvalidRequestError on a malformed body, TooLargeError, UploadBrokenError on a slow or lost client,
    InsufficientResourcesError on a full disk, and CalibrationRefusedError on binary bytes.
    """
    rules = _Rules(max_bytes=settings.max_calibration_bytes, seconds=settings.upload_seconds, text=True)
    with NamedTemporaryFile(dir=_made(upload_folder(settings)), suffix=".part") as file:
        yield Upload(file=file, name=await _receive(request, file, rules))


@asynccontextmanager
async def receive_archive(request: Request, settings: ApiSettings) -> AsyncIterator[Upload]:
    """Receives the archive of a multipart body into a file without a name, which the system removes whatever happens.

    Raises as `receive_text` does, bytes of any kind being taken.
    """
    rules = _Rules(max_bytes=settings.max_model_bytes, seconds=settings.model_upload_seconds, text=False)
    with TemporaryFile(dir=_made(upload_folder(settings))) as file:
        yield Upload(file=file, name=await _receive(request, file, rules))


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


async def _receive(request: Request, file: IO[bytes], rules: _Rules) -> str:
    """Writes the part 'file' and returns its name."""
    form = UploadForm(request.headers.get("content-type", ""))
    try:
        async with asyncio.timeout(rules.seconds):
            await _write(request, form, file, rules)
    except TimeoutError as error:
        raise UploadBrokenError(f"It took longer than {rules.seconds:.0f} s.") from error
    except ClientDisconnect as error:
        raise UploadBrokenError("The connection was closed before the end.") from error
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        free_bytes = shutil.disk_usage(request.app.state.services.settings.data_dir).free
        raise InsufficientResourcesError("disk", announced_bytes(request), free_bytes) from error
    return _clean_name(form.name)


async def _write(request: Request, form: UploadForm, file: IO[bytes], rules: _Rules) -> None:
    written = 0
    async for chunk in request.stream():
        data = b"".join(form.feed(chunk))
        written += len(data)
        if written > rules.max_bytes:
            raise TooLargeError(rules.max_bytes)
        if rules.text and b"\0" in data:
            raise CalibrationRefusedError(
                CalibrationProblem.BINARY, "The file has NUL bytes, so it is no text.", "Upload UTF-8 text or JSONL."
            )
        await run_in_threadpool(file.write, data)
    form.finish()
    await run_in_threadpool(file.flush)


def _clean_name(name: str) -> str:
    printable = "".join(character for character in name if character.isprintable() and character != os.sep)
    return printable.strip()[:NAME_MAX_CHARS] or DEFAULT_NAME
