"""The filesystem transport on its own: whole messages, taken once, and a folder that is swept."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from kombu import Connection
from kombu.simple import SimpleQueue

from store import filesystem_broker
from store.queue import Waker
from store.settings import StoreSettings

MESSAGES = 60
CONSUMERS = 4


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder for messages, not made yet."""
    return tmp_path / "broker"


def _connect(folder: Path) -> Connection:
    return Connection(
        "filesystem://",
        transport=filesystem_broker.TRANSPORT,
        transport_options=filesystem_broker.transport_options(folder),
    )


def _publish(folder: Path, queue: str, *hints: str) -> None:
    waker = Waker(StoreSettings(broker_url=f"filesystem://{folder}"))
    for hint in hints:
        assert waker.wake(queue, hint)
    waker.close()


def _consume(folder: Path, queue: str, start: threading.Barrier) -> list[str]:
    received: list[str] = []
    with _connect(folder) as connection:
        simple: SimpleQueue = connection.SimpleQueue(queue)
        start.wait()
        try:
            while True:
                message = simple.get(timeout=1)
                _, options, _ = message.payload
                received.append(options["hint"])
                message.ack()
        except simple.Empty:
            return received
        finally:
            simple.close()


def test_each_message_is_taken_once(folder: Path) -> None:
    """Consumers that compete for one queue together get every message, and none twice."""
    hints = [str(number) for number in range(MESSAGES)]
    _publish(folder, "default", *hints)
    start = threading.Barrier(CONSUMERS)
    with ThreadPoolExecutor(CONSUMERS) as pool:
        runs = [pool.submit(_consume, folder, "default", start) for _ in range(CONSUMERS)]
        counted = Counter(hint for run in runs for hint in run.result())
    assert counted == Counter(hints)
    assert not [path for path in folder.rglob("*") if path.is_file()]


def test_queues_are_apart(folder: Path) -> None:
    """A consumer gets its own queue's messages only, also where one name ends like another."""
    _publish(folder, "gpu", "for gpu")
    _publish(folder, "default", "for default")
    alone = threading.Barrier(1)
    assert _consume(folder, "default", alone) == ["for default"]
    assert _consume(folder, "pu", alone) == []
    assert _consume(folder, "gpu", alone) == ["for gpu"]


def test_half_written_message_is_not_seen(folder: Path) -> None:
    """A message under its temporary name, as a crash leaves it, is nobody's."""
    _publish(folder, "default", "whole")
    (folder / "messages" / "1_ab.partial").write_text('{"body": ')
    assert _consume(folder, "default", threading.Barrier(1)) == ["whole"]


def test_sweep_takes_what_is_old(folder: Path) -> None:
    """Leftovers go after their time: messages that nobody wanted, half-written ones, taken ones of a crash."""
    _publish(folder, "default", "old", "new")
    old, new = sorted((folder / "messages").iterdir())
    leftovers = [old, folder / "messages" / "1.partial", folder / "taken" / "2.default.msg"]
    long_ago = time.time() - 7200
    for path in leftovers:
        path.touch()
        os.utime(path, (long_ago, long_ago))
    assert filesystem_broker.sweep(folder) == 3
    assert [path for path in folder.rglob("*") if path.is_file()] == [new]


def test_sweep_of_no_folder(folder: Path) -> None:
    """Before the first message there is nothing to sweep."""
    assert filesystem_broker.sweep(folder) == 0
