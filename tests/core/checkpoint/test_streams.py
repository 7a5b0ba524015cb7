"""Files written beside a run: the bytes and hashes of plain writes, errors with their class, nothing left open."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.checkpoint.streams import WAITING_BYTES, StreamWriter

CHUNKS = [os.urandom(size) for size in (1, 700_000, 1 << 20, 0, 13)]


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_files_are_whole_and_hashed(tmp_path: Path):
    """Two files one after the other each get their own bytes and their own hash."""
    before = open_files()
    with StreamWriter() as writer:
        first = writer.write(tmp_path / "a", iter(CHUNKS))
        second = writer.write(tmp_path / "b", reversed(CHUNKS))
        sums = [first.result(), second.result()]
    expected = [b"".join(CHUNKS), b"".join(reversed(CHUNKS))]
    assert [(tmp_path / name).read_bytes() for name in "ab"] == expected
    assert sums == [hashlib.sha256(content).hexdigest() for content in expected]
    assert open_files() == before


def test_a_full_disk_is_the_callers_error():
    """The writer does not swallow it and does not wait for ever; the producer is stopped."""
    before = open_files()
    with pytest.raises(OSError, match="No space") as caught, StreamWriter() as writer:
        writer.write(Path("/dev/full"), (bytes(1 << 20) for _ in range(1000)))
    assert caught.value.errno == errno.ENOSPC
    assert open_files() == before


def test_an_error_of_the_chunks_is_raised_as_it_is(tmp_path: Path):
    def chunks() -> Iterator[bytes]:
        yield b"begun"
        raise EOFError("the source ends early")

    before = open_files()
    with pytest.raises(EOFError, match="ends early"), StreamWriter() as writer:
        writer.write(tmp_path / "a", chunks())
    assert open_files() == before


def test_what_waits_for_the_disk_is_bounded(tmp_path: Path):
    """Against a reader that takes nothing, no more is made than a pipe, the limit and one chunk hold."""
    made: list[int] = []
    path = tmp_path / "pipe"
    os.mkfifo(path)
    chunk = bytes(WAITING_BYTES // 4)

    def chunks() -> Iterator[bytes]:
        for number in range(64):
            made.append(number)
            yield chunk

    received = 0

    def drain() -> None:
        nonlocal received
        with path.open("rb") as reader:
            while len(made) < 5:
                threading.Event().wait(0.005)
            while part := reader.read(1 << 20):
                received += len(part)
                # Made and not yet taken: what waits, the chunk under way, the one being made.
                assert len(made) * len(chunk) - received <= WAITING_BYTES + 3 * len(chunk)

    failures: list[BaseException] = []

    def run() -> None:
        try:
            drain()
        except BaseException as error:  # noqa: BLE001 - told by the test's own thread
            failures.append(error)

    reader = threading.Thread(target=run)
    reader.start()
    with StreamWriter() as writer, pytest.raises(OSError, match="Invalid argument"):
        writer.write(path, chunks()).result()  # a pipe cannot be synced; all bytes are through by then
    reader.join()
    assert not failures
    assert received == 64 * len(chunk)
