"""The process that quantizes one job: a spec in, the engine's events and one last line out. `python -m worker.child`.

It holds no database connection, broker or cloud secret, needs no network, and dies with its supervisor.
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import shutil
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from core.checkpoint.checksums import verify_sha256sums
from core.errors import ArtifactInvalidError, CoreError, ResumeRefusedError, RunStoppedError
from core.events import BudgetPlanned, CalibrationDrawn, Event, RunStarted, Stage, StageStarted, WarningRaised
from core.preflight.source import ModelFacts
from core.threads import leave_out_gpu_compiler, loading_engine, wait_briefly
from worker.channel import Channel, run_child
from worker.errors import AttemptFailedError, Failure, failure_from
from worker.faults import FaultPoint, Faults
from worker.preflight import check_attempt, run_request
from worker.protocol import CalibrationText, QuantizeSpec, Result, Stopped

if TYPE_CHECKING:
    from core.budget.plan import BudgetPlan
    from core.calibration.windows import CalibrationWindows

LOCK_FILE = "child.lock"

Engine = Callable[..., object]


class Attempt:
    """One attempt at one spec, stage by stage."""

    def __init__(self, spec: QuantizeSpec, channel: Channel) -> None:
        self._spec = spec
        self._channel = channel
        self._faults = Faults(spec.faults.plan, spec.faults.folder)
        self._request = run_request(spec.asked)
        self._resolved: dict[str, Any] = {}
        self._facts: ModelFacts | None = None

    def run(self) -> Result:
        """Runs every stage and returns the last line; raises core errors, RunStoppedError among them."""
        self._preflight()
        calibration = None if self._spec.calibration is None else self._calibrate(self._spec.calibration)
        self._quantize(calibration, self._plan(calibration))
        return Result(evaluation=self._evaluate() if self._spec.evaluate else None, resolved=self._resolved)

    def _preflight(self) -> None:
        self._begin(Stage.PREFLIGHT)
        text = self._spec.calibration
        writes_text = self._spec.asked.writes_text and text is not None and not text.path.exists()
        self._facts, warnings = check_attempt(
            self._request, self._spec.model_dir, self._spec.work_dir, writes_text=writes_text
        )
        for message in warnings:
            self._emit(WarningRaised(code="preflight", message=message))

    def _calibrate(self, text: CalibrationText) -> CalibrationWindows:
        self._begin(Stage.CALIBRATING)
        # Loading torch and transformers takes seconds: only now that the job has passed what can be checked without.
        with loading_engine():
            from worker.measure import draw, write_text  # noqa: PLC0415

        config = self._request.calibration
        assert config is not None  # noqa: S101 - the text comes with its options
        if self._spec.asked.writes_text:
            write_text(self._spec.model_dir, config, text.path, self._progress)
        windows = draw(text.path, self._spec.model_dir, config, look=text.look)
        self._emit(
            CalibrationDrawn(
                documents=windows.documents,
                tokens_available=windows.tokens_available,
                samples=windows.samples,
                seq_len=windows.seq_len,
                sha256=windows.sha256,
            )
        )
        for message in windows.warnings:
            self._emit(WarningRaised(code="calibration", message=message))
        self._resolved["calibration_windows_sha256"] = windows.sha256
        return windows

    def _plan(self, calibration: CalibrationWindows | None) -> BudgetPlan | None:
        """Chooses bits and group sizes under the budget, or takes over what an earlier attempt chose."""
        request = self._request.plan_request
        if request is None or calibration is None:
            return None
        from worker.measure import plan_under  # noqa: PLC0415 - as above

        spec = self._spec
        plan = plan_under(request, spec.model_dir, calibration, spec.plan, spec.work_dir.parent, self._progress)
        self._emit(BudgetPlanned(bits=plan.bits, divergence=plan.divergence, plan=plan.to_dict()))
        for message in plan.warnings:
            self._emit(WarningRaised(code="budget", message=message))
        return plan

    def _quantize(self, calibration: CalibrationWindows | None, plan: BudgetPlan | None) -> None:
        spec = self._spec
        if self._finished_before():
            return
        engine = load_engine(spec.engine_file)
        if spec.engine_file is None and spec.cache_dir is not None:
            keep_rates(spec.cache_dir)
        config = self._request.config if plan is None else plan.config
        options: dict[str, Any] = {
            "work_dir": spec.work_dir,
            "formats": spec.asked.formats,
            "on_event": self._emit,
            "should_stop": self._channel.should_stop,
            "on_fault": self._faults.hit,
            "provenance": spec.provenance,
        }
        if plan is not None:
            options["plan"] = plan
        if (spec.threads, spec.device, spec.activation_memory) != (None, "cpu", None):
            options["resources"] = resources(spec)
        try:
            engine(spec.model_dir, spec.out_dir, config, calibration, **options)
        except ResumeRefusedError as error:
            # Another machine or version began this job: its blocks cannot be mixed with ours, so start from the first.
            self._emit(WarningRaised(code="restarted", message=f"{error.field} changed; starting from block 0."))
            shutil.rmtree(spec.work_dir)
            engine(spec.model_dir, spec.out_dir, config, calibration, **options)

    def _finished_before(self) -> bool:
        """Whether an earlier attempt completed the artifact and was lost after that; its bytes are checked."""
        if not self._spec.out_dir.exists():
            return False
        from core.evaluation.evidence import mend_evidence  # noqa: PLC0415 - takes seconds to load

        try:
            mend_evidence(self._spec.out_dir)
            verify_sha256sums(self._spec.out_dir)
        except ArtifactInvalidError as error:
            self._emit(WarningRaised(code="rebuilt", message=f"The finished artifact was damaged: {error.detail}"))
            shutil.rmtree(self._spec.out_dir)
            return False
        self._emit(StageStarted(stage=Stage.PACKING))
        return True

    def _evaluate(self) -> dict[str, Any]:
        self._begin(Stage.EVALUATING)
        from worker.evaluate import evaluate  # noqa: PLC0415 - as above

        assert self._facts is not None  # noqa: S101 - preflight came first
        spec = self._spec
        return evaluate(
            spec.model_dir,
            spec.out_dir,
            self._facts,
            self._progress,
            with_nf4=spec.evaluate_nf4,
            on_fault=self._faults.hit,
        )

    def _progress(self, event: Event) -> None:
        """Passes an event on; between two events is where a stage without blocks can stop."""
        self._emit(event)
        self._stop_if_asked()

    def _begin(self, stage: Stage) -> None:
        self._stop_if_asked()
        self._emit(StageStarted(stage=stage))

    def _stop_if_asked(self) -> None:
        if self._channel.should_stop():
            raise RunStoppedError(blocks_done=0)

    def _emit(self, event: Event) -> None:
        if isinstance(event, RunStarted):
            self._resolved["fingerprint"] = event.fingerprint
        self._channel.emit(event)
        if isinstance(event, StageStarted) and event.stage is Stage.PACKING:
            self._faults.hit(FaultPoint.PACKING)


def resources(spec: QuantizeSpec) -> object:
    """Returns the engine's resources as the spec limits and names them."""
    from core.pipeline import Resources  # noqa: PLC0415 - takes seconds to load

    return Resources(threads=spec.threads, device=spec.device, activation_memory=spec.activation_memory)


def keep_rates(cache_dir: Path) -> None:
    """Measures this machine where nobody has; estimates of time need that, this job does not."""
    from core.solver.machine_rates import machine_rates  # noqa: PLC0415 - takes seconds to load

    with suppress(OSError):
        machine_rates(cache_dir)


def load_engine(stand_in: Path | None) -> Engine:
    """Returns the engine's entry; a test's stand-in comes from a file that the worker's settings had to allow."""
    if stand_in is None:
        with loading_engine():
            from core.pipeline import quantize_checkpoint  # noqa: PLC0415 - takes seconds to load

        return quantize_checkpoint
    module_spec = importlib.util.spec_from_file_location("bitmill_test_engine", stand_in)
    if module_spec is None or module_spec.loader is None:
        raise ImportError(f"{stand_in} is not a Python file")
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)
    engine: Engine = module.quantize_checkpoint
    return engine


@contextmanager
def sole_user(folder: Path) -> Iterator[None]:
    """Keeps a second child out of the work folder while this one lives; the lock goes with the process."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        failure = Failure(code="work_folder_busy", message="Another process still works on this job.")
        raise AttemptFailedError(failure) from error
    else:
        yield
    finally:
        os.close(descriptor)


def main(channel: Channel) -> int:
    """Runs one spec; returns the exit code. The last line on the pipe says how it ended."""
    wait_briefly()
    leave_out_gpu_compiler()
    try:
        spec = QuantizeSpec.model_validate_json(channel.read_spec())
    except ValidationError as error:
        return channel.fail(Failure(code="spec_invalid", message=f"The work order cannot be read: {error}"))
    channel.listen(spec.silence_seconds)
    try:
        with sole_user(spec.work_dir.parent):
            channel.write(Attempt(spec, channel).run())
    except RunStoppedError:
        channel.write(Stopped())
    except Exception as error:  # noqa: BLE001 - the task's edge: whatever the engine raises becomes one failure line
        if not isinstance(error, CoreError | AttemptFailedError):
            traceback.print_exc(file=sys.stderr)
        return channel.fail(failure_from(error))
    return 0


if __name__ == "__main__":
    run_child(main)
