"""Writes one upload to a temporary file while it arrives: capped, timed, and refused at the first binary byte.

What the text says and whether it is usable is `core.calibration.texts`' business.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request

from api.errors import TooLargeError, UploadBrokenError
from api.multipart import UploadForm
from api.settings import ApiSettings
from core.errors import CalibrationProblem, CalibrationRefusedError

NAME_MAX_CHARS = 200
DEFAULT_NAME = "upload"


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """One received text. name: as the client called it, printable, without any folder."""

    path: Path
    name: str


@asynccontextmanager
async def receive_upload(request: Request, settings: ApiSettings) -> AsyncIterator[Upload]:
    """Receives the text of a multipart body into a file that is gone after the block.

    Raises InvalidRequestError on a malformed body, TooLargeError, UploadBrokenError on a slow or lost client, and
    CalibrationRefusedError on binary bytes.
    """
    folder = settings.data_dir / "uploads"
    folder.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile(dir=folder, suffix=".part") as file:
        form = UploadForm(request.headers.get("content-type", ""))
        try:
            async with asyncio.timeout(settings.upload_seconds):
                await _receive(request, form, file, settings.max_calibration_bytes)
        except TimeoutError as error:
            raise UploadBrokenError(f"It took longer than {settings.upload_seconds:.0f} s.") from error
        except ClientDisconnect as error:
            raise UploadBrokenError("The connection was closed before the end.") from error
        yield Upload(path=Path(file.name), name=_clean_name(form.name))


async def _receive(request: Request, form: UploadForm, file: IO[bytes], max_bytes: int) -> None:
    written = 0
    async for chunk in request.stream():
        data = b"".join(form.feed(chunk))
        written += len(data)
        if written > max_bytes:
            raise TooLargeError(max_bytes)
        if b"\0" in data:
            raise CalibrationRefusedError(
                CalibrationProblem.BINARY, "The file has NUL bytes, so it is no text.", "Upload UTF-8 text or JSONL."
            )
        await run_in_threadpool(file.write, data)
    form.finish()
    await run_in_threadpool(file.flush)


def _clean_name(name: str) -> str:
    printable = "".join(character for character in name if character.isprintable() and character != os.sep)
    return printable.strip()[:NAME_MAX_CHARS] or DEFAULT_NAME
