"""Turns a child's ticks and events into what the job shows: progress, stage, history, linears' rows, warnings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from core.checkpoint.record import read_record
from core.events import (
    BlockQuantized,
    BudgetPlanned,
    CalibrationDrawn,
    Event,
    LinearQuantized,
    RunStarted,
    StageAdvanced,
    StageStarted,
    WarningRaised,
    event_from_dict,
)
from core.events import Stage as EngineStage
from core.progress import Progress, ProgressEstimator
from store.jobs import JobProgress, LinearRow, Stage
from worker.journal import LINEAR_FIELDS
from worker.lease import Lease
from worker.protocol import EngineEvent, Fetched, Tick
from worker.transfer import TransferEstimator

ENGINE_STAGES = tuple(EngineStage)
DECIMALS = 4
FETCH_SHARE = 0.1
"""Of the bar, where a model is fetched first; how long the rest takes is not known then."""


class Observer:
    """One per attempt."""

    def __init__(self, lease: Lease, work_dir: Path, on_block: Callable[[BlockQuantized], None]) -> None:
        """on_block: is told of every block that is recorded in work_dir."""
        self._lease = lease
        self._work_dir = work_dir
        self._on_block = on_block
        self._estimator = ProgressEstimator()
        self._transfer = TransferEstimator()
        self._fetch_share = 0.0
        self._progress = JobProgress()
        self._warnings: list[Mapping[str, Any]] = []
        self._rank = 0

    def recall(self, warnings: Iterable[Mapping[str, Any]]) -> None:
        """Takes over the warnings of earlier attempts, whose finished blocks this one will not solve again."""
        for warning in warnings:
            self._keep(warning)

    def _keep(self, warning: Mapping[str, Any]) -> None:
        if warning not in self._warnings:
            self._warnings.append(warning)

    @property
    def warnings(self) -> tuple[Mapping[str, Any], ...]:
        """Returns every warning once, for the job's row."""
        return tuple(self._warnings)

    def fetched(self, done_bytes: int, total_bytes: int) -> None:
        """Takes how much of the model has come; the part of the bar that it fills is the fetch's from then on."""
        transfer = self._transfer.update(done_bytes, total_bytes)
        self._fetch_share = max(self._fetch_share, FETCH_SHARE * transfer.share)
        self._progress = replace(self._progress, fraction=self._fetch_share, eta_at=_time_after(transfer.seconds_left))
        self._lease.advance(self._progress)

    def take(self, line: Tick | Fetched | EngineEvent) -> None:
        """Takes a line of a child."""
        if isinstance(line, Fetched):
            self.fetched(line.done_bytes, line.total_bytes)
            return
        if isinstance(line, Tick):
            # Not worth a write of its own: it goes along with the next thing that happens.
            self._progress = replace(self._progress, rss_bytes=line.rss_bytes)
            return
        event = event_from_dict(line.event)
        self._tell(event)
        self._note(event)
        self._show(self._estimator.update(event))

    def _tell(self, event: Event) -> None:
        """Adds a line to the log that the job's owner reads; linears have rows of their own."""
        if isinstance(event, LinearQuantized | StageAdvanced):
            return
        log = self._lease.journal.log
        if isinstance(event, WarningRaised):
            log.add("child", event.message, "warning", code=event.code)
        else:
            log.add("child", event.kind, "info", **_told(event))

    def _note(self, event: Event) -> None:
        journal = self._lease.journal
        match event:
            case StageStarted():
                self._enter(event.stage)
            case RunStarted():
                journal.record(event.kind, _payload(event))
                journal.resolve({"fingerprint": event.fingerprint})
                journal.recall_linears(self._solved_before())
            case CalibrationDrawn():
                journal.record(event.kind, _payload(event))
            case BudgetPlanned():
                journal.record(event.kind, {"bits": event.bits, "divergence": event.divergence})
                journal.resolve({"budget_plan": event.plan})
            case BlockQuantized():
                journal.record(event.kind, _payload(event))
                self._on_block(event)
            case WarningRaised():
                journal.record(event.kind, _payload(event))
                self._keep(_payload(event))
            case LinearQuantized():
                journal.record_linear(event)
                self._progress = replace(self._progress, last_linear=event.linear, last_loss=event.loss)

    def _solved_before(self) -> Iterator[LinearRow]:
        """Yields the rows of the blocks that this attempt takes over."""
        record = read_record(self._work_dir)
        for block in record.blocks if record is not None else ():
            for row in block.rows:
                known = {name: value for name, value in row.items() if name in LINEAR_FIELDS}
                yield LinearRow(**{**known, "linear": row["name"], "warnings": tuple(row["warnings"])})

    def _enter(self, stage: EngineStage) -> None:
        """Shows a stage; the engine repeats checks that the child made before it, and the job does not step back."""
        rank = ENGINE_STAGES.index(stage)
        if rank >= self._rank:
            self._rank = rank
            self._lease.enter(Stage(stage.value))

    def _show(self, progress: Progress) -> None:
        self._progress = replace(
            self._progress,
            fraction=self._fetch_share + (1.0 - self._fetch_share) * progress.fraction,
            blocks_done=progress.blocks_done,
            blocks_total=progress.blocks_total,
            eta_at=_time_after(progress.seconds_left),
        )
        self._lease.advance(self._progress)


def _time_after(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.now(UTC) + timedelta(seconds=seconds)


def _told(event: Event) -> dict[str, str | int | float]:
    """Returns what a line of the log says of an event: its plain values."""
    values = {name: value for name, value in _payload(event).items() if isinstance(value, str | int | float)}
    return {name: round(value, DECIMALS) if isinstance(value, float) else value for name, value in values.items()}


def _payload(event: Event) -> dict[str, Any]:
    payload = event.to_dict()
    del payload["kind"]
    return payload
