"""The child alone, driven over its pipe as a supervisor does."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from core.configs import RTNConfig
from tests.worker.bench import FAKE_ENGINE
from worker.protocol import EXIT_FAILED, EXIT_FORSAKEN, EXIT_ORPHANED, Asked, QuantizeSpec, Stop, Tick
from worker.settings import WorkerSettings, python_command


@pytest.fixture
def spec(tmp_path: Path, tiny_model: Path) -> QuantizeSpec:
    """A work order on a slow model."""
    model = shutil.copytree(tiny_model, tmp_path / "model")
    (model / "plan.json").write_text(json.dumps({"block_seconds": 0.5}))
    return QuantizeSpec(
        model_dir=model,
        work_dir=tmp_path / "job" / "blocks",
        out_dir=tmp_path / "job" / "artifact",
        asked=Asked(quantization=RTNConfig(group_size=32).to_dict()),
        calibration=None,
        engine_file=FAKE_ENGINE,
        silence_seconds=30,
    )


class Driver:
    """A child and its pipes."""

    def __init__(self, popen: subprocess.Popen[bytes]) -> None:
        assert popen.stdin is not None
        assert popen.stdout is not None
        self.popen, self.stdin, self.stdout = popen, popen.stdin, popen.stdout

    def say(self, line: bytes) -> None:
        self.stdin.write(line)
        self.stdin.flush()

    def until(self, kind: str, event: str | None = None) -> dict[str, Any]:
        """Returns the next line of a kind, and event kind."""
        for line in self.stdout:
            values: dict[str, Any] = json.loads(line)
            if values["kind"] == kind and (event is None or values["event"]["kind"] == event):
                return values
        raise AssertionError(f"the child ended without a line of kind {kind}")


@contextmanager
def running(settings: WorkerSettings) -> Iterator[Driver]:
    with subprocess.Popen(
        python_command("worker.child"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=settings.child_environment(),
    ) as popen:
        try:
            yield Driver(popen)
        finally:
            popen.kill()


def test_only_the_protocol_is_on_standard_output(settings: WorkerSettings, spec: QuantizeSpec):
    """Every line is JSON, though the engine prints; the last one is the result."""
    with running(settings) as child:
        child.say(spec.encode())
        lines = [json.loads(line) for line in child.stdout]
        assert child.popen.wait(60) == 0
    assert lines[-1]["kind"] == "result"
    assert {line["kind"] for line in lines} == {"tick", "event", "result"}


def test_a_child_ends_with_its_supervisor(settings: WorkerSettings, spec: QuantizeSpec):
    """When the supervisor's end of the pipe closes, the child is gone within a moment."""
    with running(settings) as child:
        child.say(spec.encode())
        child.until("event", "block_quantized")
        child.stdin.close()
        assert child.popen.wait(60) in {EXIT_ORPHANED, -signal.SIGKILL}


def test_a_forsaken_child_ends_by_itself(settings: WorkerSettings, spec: QuantizeSpec):
    """A supervisor that is frozen sends no ticks: its child ends before another worker can own the job."""
    with running(settings) as child:
        child.say(spec.model_copy(update={"silence_seconds": 2.5}).encode())
        child.until("event", "run_started")
        assert child.popen.wait(60) == EXIT_FORSAKEN


def test_ticks_keep_a_child_alive(settings: WorkerSettings, spec: QuantizeSpec):
    """A supervisor that does tick is waited for."""
    with running(settings) as child:
        child.say(spec.model_copy(update={"silence_seconds": 2}).encode())
        for _ in range(12):
            child.say(Tick().encode())
            time.sleep(0.25)
        assert child.popen.poll() is None


def test_stop_after_the_block_lets_it_finish(settings: WorkerSettings, spec: QuantizeSpec):
    """A drain's stop takes effect once the block that is under way is recorded, not before."""
    (spec.model_dir / "plan.json").write_text(json.dumps({"block_seconds": 2}))
    with running(settings) as child:
        child.say(spec.encode())
        child.until("event", "block_quantized")
        child.say(Stop(after_block=True).encode())
        lines = [json.loads(line) for line in child.stdout]
    blocks = [line["event"]["block"] for line in lines if line["kind"] == "event" and "sha256" in line["event"]]
    assert blocks == [1]
    assert lines[-1]["kind"] == "stopped"


def test_two_children_never_share_a_work_folder(settings: WorkerSettings, spec: QuantizeSpec):
    """The second child of one job refuses to start; the first goes on."""
    with running(settings) as first, running(settings) as second:
        first.say(spec.encode())
        first.until("event", "run_started")
        second.say(spec.encode())
        assert second.until("failure")["code"] == "work_folder_busy"
        assert second.popen.wait(60) == EXIT_FAILED
        assert first.popen.poll() is None


def test_an_unreadable_spec_is_a_failure_line(settings: WorkerSettings):
    """A work order of another version is refused in words, not by a traceback."""
    with running(settings) as child:
        child.say(b'{"model_dir": 3}\n')
        assert child.until("failure")["code"] == "spec_invalid"
