"""Several devices, each with its part of the calibration batches: the processor stands for two and three of them."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from core.calibration.windows import CalibrationWindows
from core.configs import AWQConfig, GPTQConfig, Order, Preset, QuantizationConfig, RTNConfig
from core.device import CPU
from core.errors import InvalidConfigError, ResumeRefusedError, RunStoppedError
from core.events import Event, RunStarted
from core.model.capture import BlockArguments
from core.pipeline import Resources, quantize_checkpoint
from core.quantizers.team import Station, Team
from core.report import QuantizationReport
from core.steps import run as steps_run
from tests.core.solver.problems import exact_products
from tests.core.stops import stop_in
from tests.core.tiny import random_tokens, write_tiny_model

SEQ_LEN = 32
TOKENS_PER_BATCH = 64
BATCHES = 11
"""No multiple of the devices; the seventh is held out where any is."""
MEASURED = {"quantization_report.json", "SHA256SUMS"}
CASES: dict[str, tuple[str, QuantizationConfig]] = {
    "default": ("llama", GPTQConfig(**{**GPTQConfig.presets[Preset.DEFAULT], "bits": 4, "group_size": 32})),
    "held out": ("llama", GPTQConfig(bits=4, group_size=32, order=Order.AUTO, hold_out=True, refine_rounds=2)),
    "experts": ("mixtral", GPTQConfig(bits=4, group_size=32)),
    "experts held out": ("mixtral", GPTQConfig(bits=4, group_size=32, hold_out=True, refine_rounds=1)),
    "all experts fed": ("qwen3_moe", GPTQConfig(bits=4, group_size=32, feed_all_experts=True)),
    "sets of one tensor": ("gpt_neox", GPTQConfig(bits=4, group_size=32)),
    "not in order": ("llama", GPTQConfig(bits=4, group_size=32, true_sequential=False)),
    "channel scales": ("llama", AWQConfig(bits=4, group_size=32)),
}


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps_run, "TOKENS_PER_BATCH", TOKENS_PER_BATCH)


def windows(batches: int = BATCHES) -> CalibrationWindows:
    tokens = random_tokens(batches * TOKENS_PER_BATCH // SEQ_LEN, SEQ_LEN)
    return CalibrationWindows(tokens_NT=tokens, sha256="0" * 64, tokens_available=tokens.numel())


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """One model, quantized in several ways beside one another."""

    folder: Path
    config: QuantizationConfig

    @property
    def source(self) -> Path:
        return self.folder / "model"

    def run(self, name: str, device: str, batches: int = BATCHES, **options: Any) -> QuantizationReport:  # noqa: ANN401
        resources = Resources(device=device, activation_memory=options.pop("activation_memory", None))
        return quantize_checkpoint(
            self.source, self.folder / name, self.config, windows(batches), resources=resources, **options
        )

    def hashes(self, name: str) -> dict[str, str]:
        files = (path for path in (self.folder / name).iterdir() if path.name not in MEASURED)
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def bench(folder: Path, case: str = "default", **options: object) -> Bench:
    family, config = CASES[case]
    write_tiny_model(folder / "model", family, **{"num_hidden_layers": 2, **options})
    return Bench(folder=folder, config=config)


@pytest.mark.parametrize("case", CASES)
def test_several_devices_come_to_what_one_does(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every linear sees as many tokens and loses as much, but for the order in which sums are added; twice the same."""
    exact_products(monkeypatch)
    made = bench(tmp_path, case)
    alone = made.run("alone", "cpu")
    for name, device in (("two", "cpu,cpu"), ("three", "cpu,cpu,cpu"), ("again", "cpu,cpu,cpu")):
        report = made.run(name, device)
        assert report.devices == tuple(device.split(","))
        assert [row.tokens for row in report.linears] == [row.tokens for row in alone.linears]
        for row, expected in zip(report.linears, alone.linears, strict=True):
            assert row.relative_loss == pytest.approx(expected.relative_loss, rel=0.02), row.name
        assert report.mean_relative_loss == pytest.approx(alone.mean_relative_loss, rel=2e-3)
    assert made.hashes("three") == made.hashes("again")
    assert threads_left() == []


def threads_left() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("bitmill-")]


def test_batches_are_dealt_out_in_runs_of_neighbours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each device runs its own batches alone, in a thread of its own, and the processor's threads are shared."""
    ran: dict[str, list[int]] = {}
    threads: set[tuple[str, int]] = set()
    call = BlockArguments.call

    def noting(self: BlockArguments, block: Callable[..., Any], hidden: torch.Tensor) -> torch.Tensor:
        name = threading.current_thread().name.rpartition("_")[0]
        ran.setdefault(name, []).append(hidden.shape[1])
        threads.add((name, torch.get_num_threads()))
        return call(self, block, hidden)

    made = bench(tmp_path, "channel scales", num_hidden_layers=1)
    monkeypatch.setattr(BlockArguments, "call", noting)
    had = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        made.run("out", "cpu,cpu")
        assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(had)
    assert {name: count for name, count in threads if name} == {"bitmill-cpu": 2}
    assert len(ran["bitmill-cpu"]) == BATCHES // 2
    with Team([Station(device=CPU, further=number > 0) for number in range(3)]) as team:
        shares = team.shares(7)
    assert [list(numbers) for _, numbers in shares] == [[0, 1, 2], [3, 4], [5, 6]]


@pytest.mark.parametrize("batches", [1, 2])
def test_fewer_batches_than_devices(batches: int, tmp_path: Path) -> None:
    """Devices without a batch do nothing; with one batch all is as on one device, bit by bit."""
    made = bench(tmp_path)
    alone, three = made.run("alone", "cpu", batches), made.run("three", "cpu,cpu,cpu", batches)
    assert [row.tokens for row in three.linears] == [row.tokens for row in alone.linears]
    if batches == 1:
        assert made.hashes("three") == made.hashes("alone")


@pytest.mark.parametrize("case", ["default", "experts"])
def test_the_bytes_do_not_depend_on_the_budget(case: str, tmp_path: Path) -> None:
    """With hidden states on disk and every batch run again on every device: the same artifact."""
    made = bench(tmp_path, case)
    made.run("unlimited", "cpu,cpu", activation_memory=1 << 40)
    for budget in (0, 1 << 18):
        made.run(str(budget), "cpu,cpu", activation_memory=budget)
        assert made.hashes(str(budget)) == made.hashes("unlimited")


def test_a_resumed_run_ends_in_the_same_bytes(tmp_path: Path) -> None:
    """With its saved states, and with blocks alone, on which states are computed again; on one device it is refused."""
    made = bench(tmp_path, num_hidden_layers=3)
    made.run("straight", "cpu,cpu")
    for name, keeps_states in (("with", True), ("without", False)):
        listen, should_stop = stop_in(2)
        with pytest.raises(RunStoppedError):
            made.run(name, "cpu,cpu", on_event=listen, should_stop=should_stop)
        with pytest.raises(ResumeRefusedError) as refused:
            made.run(name, "cpu")
        assert refused.value.field == "numerics"
        for file in [] if keeps_states else (tmp_path / f"{name}.work").glob("activations-*"):
            file.unlink()
        events: list[Event] = []
        made.run(name, "cpu,cpu", on_event=events.append)
        assert [event.blocks_resumed for event in events if isinstance(event, RunStarted)] == [2]
        assert made.hashes(name) == made.hashes("straight")


def test_a_head_is_solved_from_all_batches(tmp_path: Path) -> None:
    """What leaves the last block on every device comes to the first."""
    write_tiny_model(tmp_path / "model", num_hidden_layers=1, vocab_size=288)
    made = Bench(folder=tmp_path, config=GPTQConfig(bits=4, group_size=32, lm_head=True))
    alone, two = made.run("alone", "cpu"), made.run("two", "cpu,cpu")
    assert two.linears[-1].tokens == alone.linears[-1].tokens == BATCHES * TOKENS_PER_BATCH
    assert two.linears[-1].relative_loss == pytest.approx(alone.linears[-1].relative_loss, rel=2e-3)


class FailingOnceError(Exception):
    """What a test's device breaks with."""


@pytest.mark.parametrize("broken", ["second", "first"])
def test_an_error_of_any_device_ends_the_run_with_itself(
    broken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The very error is raised, no stop that it led to, and no thread is left; then the run goes on from its blocks."""
    call, main, calls = BlockArguments.call, threading.main_thread(), []

    def failing(self: BlockArguments, block: Callable[..., Any], hidden: torch.Tensor) -> torch.Tensor:
        calls.append(threading.current_thread() is main)
        if calls[-1] == (broken == "first") and calls.count(calls[-1]) > 9:
            raise FailingOnceError
        return call(self, block, hidden)

    made = bench(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(BlockArguments, "call", failing)
        with pytest.raises(FailingOnceError):
            made.run("out", "cpu,cpu")
    assert threads_left() == []
    assert not (tmp_path / "out").exists()
    made.run("out", "cpu,cpu")
    made.run("straight", "cpu,cpu")
    assert made.hashes("out") == made.hashes("straight")


def test_a_stop_is_heard_while_another_device_is_at_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first, done with its own batches, asks on; the other ends in front of its next batch."""
    call, main = BlockArguments.call, threading.main_thread()
    at_work, heard = threading.Event(), threading.Event()
    after: list[bool] = []

    def slow(self: BlockArguments, block: Callable[..., Any], hidden: torch.Tensor) -> torch.Tensor:
        if threading.current_thread() is not main:
            after.append(heard.is_set())
            at_work.set()
            heard.wait(60)
        return call(self, block, hidden)

    def should_stop() -> bool:
        assert threading.current_thread() is main
        if at_work.is_set():
            heard.set()
        return heard.is_set()

    made = bench(tmp_path)
    monkeypatch.setattr(BlockArguments, "call", slow)
    with pytest.raises(RunStoppedError):
        made.run("out", "cpu,cpu", should_stop=should_stop)
    assert after == [False]
    assert threads_left() == []


def test_events_come_from_the_thread_that_called(tmp_path: Path) -> None:
    told: list[threading.Thread] = []
    bench(tmp_path).run("out", "cpu,cpu", on_event=lambda _: told.append(threading.current_thread()))
    assert {*told} == {threading.main_thread()}


def test_a_method_without_calibration_needs_one_device(tmp_path: Path) -> None:
    """Nothing is dealt out; the bytes are those of one device."""
    write_tiny_model(tmp_path / "model", num_hidden_layers=1)
    made = Bench(folder=tmp_path, config=RTNConfig(group_size=32))
    for name, device in (("one", "cpu"), ("two", "cpu,cpu")):
        quantize_checkpoint(made.source, tmp_path / name, made.config, None, resources=Resources(device=device))
    assert made.hashes("one") == made.hashes("two")


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        ("cpu,", "no device's name"),
        ("cpu,cuda:0", "cannot work together"),
        ("auto,auto", "cannot work together"),
        ("mps,mps", "cannot work together"),
        ("cpu, cpu", "no device's name"),
    ],
)
def test_what_cannot_work_together_is_refused_before_any_work(names: str, reason: str, tmp_path: Path) -> None:
    made = bench(tmp_path, num_hidden_layers=1)
    with pytest.raises(InvalidConfigError, match=reason) as refused:
        made.run("out", names)
    assert refused.value.field == "device"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


def test_kernels_that_serve_one_thread_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Numba's own pool of threads would end the process; the refusal says so before any work."""
    monkeypatch.setattr("numba.threading_layer", lambda: "workqueue")
    made = bench(tmp_path, num_hidden_layers=1)
    with pytest.raises(InvalidConfigError, match="one device at a time") as refused:
        made.run("out", "cpu,cpu")
    assert refused.value.field == "device"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]
    made.run("out", "cpu")
