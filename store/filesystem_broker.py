"""Celery's messages as files in one folder, for a machine without a broker: kombu's filesystem transport, made whole.

A message appears by rename, so no consumer sees half of one; a broken file is dropped and the next one is read. Only
the default exchange is served (a message goes to the queue that it names), which is all that wake-ups need.
"""

from __future__ import annotations

import json
import time
import uuid
from pathlib import Path
from queue import Empty
from typing import Any

from kombu.exceptions import ChannelError
from kombu.transport import filesystem

from store.wake_ups import read_wake_up

TRANSPORT = "store.filesystem_broker:Transport"
STALE_SECONDS = 3600.0
_TAKEN = "taken"
_PARTIAL_SUFFIX = ".partial"


def transport_options(folder: Path) -> dict[str, Any]:
    """Returns the options under which producers and consumers of one folder meet."""
    messages = str(folder / "messages")
    return {
        "data_folder_in": messages,
        "data_folder_out": messages,
        # Taken messages move within one file system: elsewhere the move would be a copy, which can be half done.
        "store_processed": True,
        "processed_folder": str(folder / _TAKEN),
        "control_folder": str(folder / "control"),
        "polling_interval": 0.25,
    }


def sweep(folder: Path, older_than_seconds: float = STALE_SECONDS) -> int:
    """Removes what crashes and absent workers left behind and returns the number of files.

    Old messages go too: they are hints, and the dispatcher sends new ones for as long as there is work.
    """
    limit = time.time() - older_than_seconds
    removed = 0
    for path in [*folder.glob("messages/*"), *folder.glob(f"{_TAKEN}/*")]:
        try:
            if path.stat().st_mtime < limit:
                path.unlink()
                removed += 1
        except FileNotFoundError:
            continue
    return removed


class Channel(filesystem.Channel):
    """Publishes by rename and survives whatever lies in the folder."""

    supports_fanout = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - kombu's signature
        """Opens a channel and makes the folders where they are missing."""
        super().__init__(*args, **kwargs)
        for folder in (self.data_folder_in, self.data_folder_out, self.processed_folder):
            Path(folder).mkdir(parents=True, exist_ok=True)

    def get_table(self, exchange: str) -> list[Any]:  # noqa: ARG002 - kombu's signature
        """Returns no bindings: the default exchange needs none, and a file of them could be read half written."""
        return []

    def _queue_bind(self, exchange: str, routing_key: str | None, pattern: str | None, queue: str) -> None:
        """Keeps no bindings; see get_table."""

    def _put(self, queue: str, payload: dict[str, Any], **_: Any) -> None:  # type: ignore[override]  # noqa: ANN401 - kombu's own base classes name the argument in two ways
        folder = Path(self.data_folder_out)
        name = f"{time.time_ns()}_{uuid.uuid4().hex}"
        partial = folder / f"{name}{_PARTIAL_SUFFIX}"
        try:
            partial.write_text(json.dumps(payload), encoding="utf-8")
            partial.replace(folder / f"{name}.{queue}.msg")
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise ChannelError(f"Cannot write a message into {folder}: {error}") from error

    def _get(self, queue: str, timeout: float | None = None) -> dict[str, Any]:  # noqa: ARG002 - kombu's signature
        """Takes the oldest readable message of a queue, or raises Empty at once; the transport does the waiting."""
        suffix = f".{queue}.msg"
        for path in sorted(Path(self.data_folder_in).iterdir()):
            if path.name.endswith(suffix):
                message = self._take(path)
                if message is not None:
                    return message
        raise Empty

    def _take(self, path: Path) -> dict[str, Any] | None:
        """Returns the message, or None where another consumer was faster or the file holds no wake-up."""
        taken = Path(self.processed_folder) / path.name
        try:
            path.rename(taken)
        except FileNotFoundError:
            return None
        content = taken.read_bytes()
        taken.unlink(missing_ok=True)
        return read_wake_up(content, path.name)


class Transport(filesystem.Transport):
    """What Celery is told to use."""

    Channel = Channel
