"""The lines between supervisor and child."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from worker.protocol import (
    Asked,
    DownloadSpec,
    EngineEvent,
    FailureLine,
    Result,
    Stop,
    Stopped,
    Tick,
    parse_from_child,
    parse_to_child,
)


@pytest.mark.parametrize(
    "line",
    [
        Tick(rss_bytes=5),
        EngineEvent(event={"kind": "stage_started", "stage": "quantizing"}),
        Result(evaluation={"perplexity_float": 1.5}, resolved={"fingerprint": "f"}),
        FailureLine(code="c", message="two\nlines", block=3),
        Stopped(),
    ],
)
def test_a_childs_line_reads_back_and_is_one_line(line: Tick | EngineEvent | Result | FailureLine | Stopped):
    encoded = line.encode()
    assert encoded.count(b"\n") == 1
    assert encoded.endswith(b"\n")
    assert parse_from_child(encoded) == line


@pytest.mark.parametrize("line", [Tick(), Stop(), Stop(after_block=True)])
def test_a_supervisors_line_reads_back(line: Tick | Stop):
    assert parse_to_child(line.encode()) == line


@pytest.mark.parametrize("line", [b"", b"hello", b"{}", b'{"kind": "boast"}', b'{"kind": "tick", "more": 1}', b"\xff"])
def test_anything_else_is_refused(line: bytes):
    with pytest.raises(ValidationError):
        parse_from_child(line)


def test_a_token_is_not_printed():
    spec = DownloadSpec(
        asked=Asked(quantization={}),
        work_dir=Path("work"),
        repo="a/b",
        revision=None,
        endpoint="https://hub",
        token="hf_hidden",  # noqa: S106 - not one
        cache_dir=Path("cache"),
        silence_seconds=1,
    )
    assert "hf_hidden" not in repr(spec)
    assert b"hf_hidden" in spec.encode()
