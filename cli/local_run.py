"""`bitmill run`: checks model and options, draws the calibration windows, runs the pipeline, sums up the losses.

The engine does the work and reports events; this module only feeds it and shows what it says.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

from cli.budget_view import curve_picture, plan_line, plan_table
from cli.calibration_text import CalibrationSource, draw_line, remarks
from cli.errors import CliError, ExitCode
from cli.loss_summary import loss_table, summarise
from cli.output import bytes_text, duration_text, err, out, print_json
from cli.profile_table import profile_table, read_profile
from cli.progress_view import ProgressState, progress_view
from cli.settings import cache_dir
from cli.stop_request import stop_on_signals
from core.budget.run import RunRequest
from core.calibration.hub import SELF_SET
from core.configs import Format
from core.errors import RunStoppedError
from core.events import BlockQuantized, Event, LinearQuantized, RunStarted, WarningRaised
from core.preflight.duration import expected_seconds
from core.preflight.resources import (
    MAX_SHARD_BYTES,
    Estimate,
    available_memory,
    check_disk,
    check_file_size,
    check_memory,
    estimate,
    generation_bytes,
)
from core.preflight.source import inspect_source
from core.progress import Progress, ProgressEstimator
from core.threads import loading_engine

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from rich.console import Console

    from cli.options import BudgetOptions, CalibrationOptions, QuantizationOptions
    from cli.progress_view import ProgressView
    from core.budget.plan import BudgetPlan
    from core.budget.request import BudgetRequest
    from core.calibration.windows import CalibrationWindows
    from core.configs import CalibrationConfig
    from core.preflight.rates import MachineRates
    from core.report import QuantizationReport


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalRun:
    """What `bitmill run` was asked for. source: the calibration text. activation_memory: bytes; None: the default."""

    src: Path
    dst: Path
    source: CalibrationSource
    quantization: QuantizationOptions
    calibration: CalibrationOptions
    budget: BudgetOptions
    targets: tuple[str, ...]
    formats: tuple[Format, ...]
    keep_work: bool
    profile: bool = False
    device: str = "auto"
    activation_memory: int | None = None

    @property
    def work_dir(self) -> Path:
        """Returns where finished blocks lie until the artifact is complete."""
        return self.dst.with_name(f"{self.dst.name}.work")

    def checked(self) -> RunRequest:
        """Returns the options as the engine takes them; raises InvalidConfigError."""
        config = self.quantization.config()
        return RunRequest(
            config=config,
            calibration=self.calibration.config() if config.needs_calibration else None,
            budget=self.budget.config(),
            targets=self.targets,
            formats=self.formats,
        )


def run_local(request: LocalRun, *, as_json: bool) -> None:
    """Runs to the end and prints the summary; raises the engine's errors, RunStoppedError after Ctrl-C."""
    console = err()
    _check_destination(request)
    request.source.check()
    options = request.checked()
    facts = inspect_source(request.src)
    config, warnings = options.check(facts)
    for warning in warnings:
        _warn(console, warning)
    calibration = options.calibration
    needs = estimate(facts, config, calibration, request.formats, activation_memory=request.activation_memory)
    if request.source.name == SELF_SET:
        check_memory(generation_bytes(facts))
    _check_machine(request, needs, console)
    started_at = time.monotonic()
    with loading_engine():
        import_module("core.pipeline")
    if (rates := _rates(request)) is not None:
        needs = replace(needs, seconds=expected_seconds(facts, config, calibration, rates, len(request.formats)))
    console.print(_needs_line(needs), style="dim", soft_wrap=True)
    report, seconds_by_block = _quantize(request, options, console)
    if not request.keep_work:
        shutil.rmtree(request.work_dir, ignore_errors=True)
    outcome = _Outcome(
        report=report, needs=needs, seconds=time.monotonic() - started_at, seconds_by_block=seconds_by_block
    )
    _print_summary(request, outcome, as_json=as_json)


def _check_machine(request: LocalRun, needs: Estimate, console: Console) -> None:
    """Raises InsufficientResourcesError for the disk; memory is the user's own to risk, and only warned of."""
    check_disk(request.dst.absolute().parent, needs.disk_bytes)
    check_file_size(min(needs.artifact_bytes, MAX_SHARD_BYTES))
    least, available = needs.least_ram_bytes, available_memory()
    if available < least:
        _warn(console, f"The run may need {bytes_text(least)} of memory, {bytes_text(available)} are free.")
    elif available < needs.ram_bytes:
        _warn(
            console,
            f"{bytes_text(needs.ram_bytes)} of memory would hold all calibration batches, {bytes_text(available)} are "
            "free: some will lie on disk or be computed again. Fewer samples are faster.",
        )


def _rates(request: LocalRun) -> MachineRates | None:
    """Returns what this machine's processor does in a second, measured where nobody has; None on another device."""
    from core.device import find_devices
    from core.solver.machine_rates import machine_rates

    return machine_rates(cache_dir()) if find_devices(request.device)[0].type == "cpu" else None


def _needs_line(needs: Estimate) -> str:
    """Returns what the run is expected to take."""
    time_text = "" if needs.seconds is None else f"about {duration_text(needs.seconds)}, "
    return (
        f"Estimate: {time_text}{bytes_text(needs.ram_bytes)} of memory, {bytes_text(needs.disk_bytes)} of disk at most"
    )


def _warn(console: Console, message: str) -> None:
    from rich.text import Text

    console.print(Text.assemble(("warning: ", "yellow"), message), soft_wrap=True)


def _check_destination(request: LocalRun) -> None:
    if request.dst.exists():
        raise CliError(
            ExitCode.USAGE,
            f"{request.dst} exists already; nothing is overwritten.",
            hint="Give another --dst, or remove that folder.",
            code="destination_exists",
            field="--dst",
        )
    request.dst.absolute().parent.mkdir(parents=True, exist_ok=True)


def _quantize(request: LocalRun, options: RunRequest, console: Console) -> tuple[QuantizationReport, list[float]]:
    """Returns the report, and how long each block took that was not finished before."""
    from core.device import find_devices
    from core.pipeline import Resources, quantize_checkpoint

    find_devices(request.device)

    def note_stop() -> None:
        console.print("Stopping after the batch under way; Ctrl-C again ends at once.", style="yellow")

    with progress_view(console) as view, stop_on_signals(note_stop) as should_stop:
        printer = _EventPrinter(view, console)
        try:
            windows = _windows(request, options.calibration, view, console, should_stop)
            plan = _plan(request, options.plan_request, windows, printer, should_stop)
            report = quantize_checkpoint(
                request.src,
                request.dst,
                options.config if plan is None else plan.config,
                windows,
                work_dir=request.work_dir,
                formats=request.formats,
                on_event=printer,
                should_stop=should_stop,
                plan=plan,
                resources=Resources(
                    profile=request.profile, device=request.device, activation_memory=request.activation_memory
                ),
            )
        except RunStoppedError as error:
            raise CliError(
                ExitCode.INTERRUPTED,
                f"Stopped; {error.blocks_done} finished blocks are kept in {request.work_dir}.",
                hint="Run the same command again to go on from there, or delete that folder.",
                code=error.code,
            ) from error
    return report, printer.seconds_by_block


def _windows(
    request: LocalRun,
    config: CalibrationConfig | None,
    view: ProgressView,
    console: Console,
    should_stop: Callable[[], bool],
) -> CalibrationWindows | None:
    """Returns the calibration windows, and says what they are; None for a method that does not calibrate."""
    if config is None:
        return None
    from core.calibration.windows import draw_windows
    from core.evaluation.loading import load_tokenizer

    def advance(done: int, total: int) -> None:
        if should_stop():
            raise RunStoppedError(blocks_done=0)
        view.show(ProgressState(label="calibrating", fraction=done / total, detail="the model writes its own text"))

    view.show(ProgressState(label="calibrating", fraction=0.0, detail="reading the calibration text"))
    source = request.source
    documents = source.documents(request.src, config, request.work_dir, advance)
    found = remarks(source, documents)
    for remark in found:
        _warn(console, remark)
    windows = replace(draw_windows(documents, load_tokenizer(request.src), config), warnings=found)
    console.print(draw_line(source, windows, config.seed), style="dim", soft_wrap=True)
    return windows


def _plan(
    request: LocalRun,
    wanted: BudgetRequest | None,
    windows: CalibrationWindows | None,
    printer: _EventPrinter,
    should_stop: Callable[[], bool],
) -> BudgetPlan | None:
    """Returns the budget's plan, the one of the work folder where it is for this very run; None without a budget."""
    if wanted is None or windows is None:
        return None
    from core.budget.store import plan_once

    plan = plan_once(request.src, wanted, windows, request.work_dir, on_event=printer, should_stop=should_stop)
    for warning in plan.warnings:
        _warn(printer.console, warning)
    printer.console.print(plan_line(plan), soft_wrap=True)
    printer.console.print(plan_table(plan), curve_picture(plan), sep="\n")
    return plan


class _EventPrinter:
    """Passes the engine's events on to the view, and warnings to the console above it."""

    def __init__(self, view: ProgressView, console: Console) -> None:
        self._view = view
        self.console = console
        self._estimator = ProgressEstimator()
        self._detail = ""
        self.seconds_by_block: list[float] = []

    def __call__(self, event: Event) -> None:
        """Takes one event."""
        progress = self._estimator.update(event)
        if isinstance(event, RunStarted) and event.blocks_resumed:
            self.console.print(f"Going on after {event.blocks_resumed} of {event.blocks_total} finished blocks.")
        elif isinstance(event, WarningRaised):
            _warn(self.console, event.message)
        elif isinstance(event, BlockQuantized):
            self.seconds_by_block.append(event.seconds)
        elif isinstance(event, LinearQuantized):
            self._detail = linear_text(event.linear, event.relative_loss)
        self._view.show(state_from(progress, self._detail))


def state_from(progress: Progress, detail: str) -> ProgressState:
    """Returns what the bar shows for the engine's progress."""
    return ProgressState(
        label=str(progress.stage),
        fraction=progress.fraction,
        blocks_done=progress.blocks_done,
        blocks_total=progress.blocks_total,
        eta_at=None if progress.seconds_left is None else time.time() + progress.seconds_left,
        detail=detail,
    )


def linear_text(name: str, relative_loss: float | None) -> str:
    """Returns one line about the linear that was solved last."""
    return name if relative_loss is None else f"{name}  loss {relative_loss:.3%}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Outcome:
    """What came of a run. needs: what was estimated before it."""

    report: QuantizationReport
    needs: Estimate
    seconds: float
    seconds_by_block: Sequence[float]


def _print_summary(request: LocalRun, outcome: _Outcome, *, as_json: bool) -> None:
    report, seconds = outcome.report, outcome.seconds
    size = sum(file.stat().st_size for file in request.dst.rglob("*") if file.is_file())
    kinds = summarise(report.linears)
    if as_json:
        summary: dict[str, Any] = {
            "artifact": str(request.dst),
            "size_bytes": size,
            "seconds": round(seconds, 3),
            "blocks": report.blocks,
            "blocks_resumed": report.blocks_resumed,
            "linears": len(report.linears),
            "bits_per_weight": report.bits_per_weight,
            "peak_rss_bytes": report.peak_rss_bytes,
            "mean_relative_loss": report.mean_relative_loss,
            "loss_by_kind": {
                row.kind: {"mean": row.mean, "worst": row.worst, "worst_in": row.worst_name} for row in kinds
            },
            "seconds_by_work": report.seconds_by_work,
            "seconds_by_block": [round(block, 3) for block in outcome.seconds_by_block],
            "estimate": asdict(outcome.needs),
            "config": report.config,
            "warnings": list(report.warnings),
        }
        print_json(summary)
        return
    console = out()
    if kinds:
        console.print(loss_table(kinds))
        console.print("Loss: share of the linear's output power that rounding changed.", style="dim")
    if request.profile:
        console.print(profile_table(read_profile(request.dst)))
    console.print(
        f"[bold green]Done[/] in {duration_text(seconds)}: {len(report.linears)} linears in {report.blocks} blocks, "
        f"{report.bits_per_weight:.2f} bits per weight, peak memory {bytes_text(report.peak_rss_bytes)}"
    )
    console.print(f"{request.dst}  {bytes_text(size)}", soft_wrap=True)
