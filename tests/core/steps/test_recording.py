"""Blocks are recorded beside the run: in order, one behind at most, durable before they are announced."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from pathlib import Path

import pytest

from core.calibration.windows import CalibrationWindows
from core.checkpoint.reader import CheckpointReader
from core.checkpoint.record import read_record
from core.configs import GPTQConfig
from core.errors import RunStoppedError
from core.events import BlockQuantized, Event, LinearQuantized
from core.pipeline import quantize_checkpoint
from tests.core.stops import stop_in
from tests.core.tiny import random_tokens, write_tiny_model

BLOCKS = 5
LINEARS = 7
GPTQ = GPTQConfig(bits=4, group_size=32)


def windows() -> CalibrationWindows:
    tokens = random_tokens(8, 32)
    return CalibrationWindows(tokens_NT=tokens, sha256="0" * 64, tokens_available=tokens.numel())


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_tiny_model(tmp_path / "model", num_hidden_layers=BLOCKS)


def own_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("bitmill-")]


def place(events: list[Event], kind: type[Event], block: int) -> int:
    """Returns where the first event of a kind about a block stands."""
    kinds = [type(event) is kind and getattr(event, "block", None) == block for event in events]
    return kinds.index(True)


def test_the_next_block_is_solved_while_one_is_recorded(source: Path, tmp_path: Path):
    """A block that waits for its disk holds up the one after the next, and no other; it is announced late."""
    events: list[Event] = []
    solved = threading.Event()
    held = []

    def listen(event: Event) -> None:
        events.append(event)
        if sum(isinstance(seen, LinearQuantized) and seen.block == 1 for seen in events) == LINEARS:
            solved.set()

    def hold(point: str) -> None:
        if point == "block_written" and not held:
            held.append(point)
            assert solved.wait(120)
            threading.Event().wait(0.05)

    quantize_checkpoint(source, tmp_path / "out", GPTQ, windows(), on_event=listen, on_fault=hold)
    assert place(events, LinearQuantized, 1) < place(events, BlockQuantized, 0) < place(events, LinearQuantized, 2)
    assert [event.block for event in events if isinstance(event, BlockQuantized)] == list(range(BLOCKS))
    for block in range(BLOCKS - 2):
        assert place(events, BlockQuantized, block) < place(events, LinearQuantized, block + 2)
    assert own_threads() == []


def test_what_is_announced_is_recorded(source: Path, tmp_path: Path):
    """At each announcement the record on the disk names the block, with the hash that its file has."""
    work = tmp_path / "out.work"

    def listen(event: Event) -> None:
        if isinstance(event, BlockQuantized):
            record = read_record(work)
            assert record is not None
            block = record.blocks[event.block].block
            assert block.sha256 == event.sha256
            assert hashlib.sha256((work / block.file).read_bytes()).hexdigest() == event.sha256

    quantize_checkpoint(source, tmp_path / "out", GPTQ, windows(), on_event=listen)


def test_a_failed_write_stops_the_run_with_its_own_error(source: Path, tmp_path: Path):
    """The disk is full at block 1: no third block is begun, block 0 stays, and a later run goes on behind it."""
    quantize_checkpoint(source, tmp_path / "straight", GPTQ, windows())
    events: list[Event] = []
    written: list[str] = []

    def fill(point: str) -> None:
        if point == "block_written":
            written.append(point)
            if len(written) == 2:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError, match="No space") as caught:
        quantize_checkpoint(source, tmp_path / "out", GPTQ, windows(), on_event=events.append, on_fault=fill)
    assert caught.value.errno == errno.ENOSPC
    assert max(event.block for event in events if isinstance(event, LinearQuantized)) <= 2
    assert [event.block for event in events if isinstance(event, BlockQuantized)] == [0]
    record = read_record(tmp_path / "out.work")
    assert record is not None
    assert len(record.blocks) == 1
    assert own_threads() == []
    report = quantize_checkpoint(source, tmp_path / "out", GPTQ, windows())
    assert report.blocks_resumed == 1
    name = "model.safetensors"
    assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "straight" / name).read_bytes()


def test_a_stopped_run_waits_for_the_block_under_way(source: Path, tmp_path: Path):
    """A stop while a block is on its way to the disk counts that block, announces it, and leaves no thread."""
    events: list[Event] = []
    asked = threading.Event()
    listen, stop = stop_in(2)

    def note(event: Event) -> None:
        events.append(event)
        listen(event)

    def should_stop() -> bool:
        if stop():
            asked.set()
        return stop()

    def hold(point: str) -> None:
        record = read_record(tmp_path / "out.work")
        if point == "block_written" and record is not None and len(record.blocks) == 1:
            assert asked.wait(120)

    with pytest.raises(RunStoppedError) as stopped:
        quantize_checkpoint(
            source, tmp_path / "out", GPTQ, windows(), on_event=note, should_stop=should_stop, on_fault=hold
        )
    assert stopped.value.blocks_done == 2
    assert [event.block for event in events if isinstance(event, BlockQuantized)] == [0, 1]
    assert own_threads() == []


def test_no_more_than_one_block_is_read_ahead(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """While a block is solved, nothing of the block after the next was read; the next one was, beside the run."""
    read: list[tuple[int, str]] = []
    plain = CheckpointReader.tensor
    ahead_of: dict[int, int] = {}

    def watched(reader: CheckpointReader, name: str) -> object:
        if ".layers." in name:
            read.append((int(name.split(".layers.")[1].split(".", maxsplit=1)[0]), threading.current_thread().name))
        return plain(reader, name)

    def listen(event: Event) -> None:
        if isinstance(event, LinearQuantized):
            ahead_of[event.block] = max(block for block, _ in read)

    monkeypatch.setattr(CheckpointReader, "tensor", watched)
    quantize_checkpoint(source, tmp_path / "out", GPTQ, windows(), on_event=listen)
    assert all(furthest <= block + 1 for block, furthest in ahead_of.items())
    assert {block for block, thread in read if thread.startswith("bitmill-read-ahead")} == set(range(1, BLOCKS))
    assert [block for block, _ in read] == sorted(block for block, _ in read)
