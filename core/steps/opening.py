"""The first step: refuses what cannot work, builds the empty model, creates or resumes the work folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import torch

from core.block_records import BlockRecords
from core.checkpoint.identity import model_sha256
from core.checkpoint.manifest import Manifest
from core.checkpoint.record import Fingerprint
from core.checkpoint.scan import scan_weights
from core.environment import forward_dtype, kernels_serve_one_thread, numerics_profile
from core.errors import CalibrationProblem, CalibrationRefusedError, InvalidConfigError
from core.events import WarningRaised
from core.kernels.compiled import trouble
from core.model.experts import Feed, set_feed
from core.model.skeleton import Skeleton
from core.preflight.checks import check_config
from core.preflight.source import inspect_source
from core.quantizers.dispatch import PerLinear
from core.steps.run import OpenRun, RunRequest


def open_run(request: RunRequest, work_dir: Path, on_fault: Callable[[str], None]) -> OpenRun:
    """Returns the run, ready for its first open block.

    Raises ModelRefusedError, InvalidConfigError, CalibrationRefusedError and ResumeRefusedError.
    """
    config = request.config
    facts = inspect_source(request.source_dir)
    check_config(config, facts, formats=request.formats)
    _require_calibration(request)
    without = kernel_trouble(request)
    if without is None:
        _require_kernels_side_by_side(request)
    weights = scan_weights(request.source_dir, facts.tensors, torch.get_num_threads())
    dtype = forward_dtype(facts.dtype, *request.devices)
    skeleton = Skeleton.open(request.source_dir, request.reader, dtype, request.device)
    if request.walk.quantizer.feeds_all_experts:
        set_feed(skeleton.model, Feed.ALL)
    records = BlockRecords(skeleton=skeleton, config=config, source=request.reader)
    shapes = records.shapes()
    if without is not None:
        request.walk.on_event(WarningRaised(code="kernels", message=without))
    per_linear = PerLinear()
    request.walk.choose = lambda index, name: per_linear.of(records.config_of(index, name))
    fingerprint = _fingerprint(request, skeleton, model_sha256(request.source_dir, weights), without)
    manifest = Manifest.open(work_dir, fingerprint, on_fault=on_fault)
    return OpenRun(
        request=request,
        facts=facts,
        skeleton=skeleton,
        records=records,
        shapes=shapes,
        manifest=manifest,
        resumed=manifest.blocks_done,
    )


def _require_calibration(request: RunRequest) -> None:
    if request.walk.quantizer.needs_calibration and request.calibration is None:
        raise CalibrationRefusedError(
            CalibrationProblem.EMPTY, f"{request.config.method} needs calibration text.", "Give a calibration text."
        )


def _require_kernels_side_by_side(request: RunRequest) -> None:
    if len(request.devices) > 1 and request.device.type == "cpu" and kernels_serve_one_thread():
        names = ",".join(map(str, request.devices))
        reason = "Numba has neither OpenMP nor TBB here, and its own threads serve one device at a time"
        raise InvalidConfigError("device", names, reason, "cpu")


def kernel_trouble(request: RunRequest) -> str | None:
    """Returns why plain torch solves on the CPU; None where it does not, or where another device solves."""
    return trouble() if request.device.type == "cpu" else None


def _fingerprint(request: RunRequest, skeleton: Skeleton, model: str, without: str | None) -> Fingerprint:
    """without: why the compiled kernels are not used."""
    return Fingerprint(
        model_sha256=model,
        calibration_sha256=request.calibration.sha256 if request.calibration else "",
        config=json.dumps(request.config.to_dict(), sort_keys=True),
        engine_version=metadata.version("bitmill"),
        numerics=numerics_profile(skeleton.dtype, *request.devices) + ("" if without is None else " plain torch"),
    )
