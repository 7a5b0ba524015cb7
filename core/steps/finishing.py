"""The last step: finished blocks become the artifact, and the run its report."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata

from core.assembly import Assembly, TensorAccount, account, bits_per_weight, rewritten
from core.block_records import starved_experts
from core.environment import peak_rss_bytes, versions
from core.profile import Profile, summarise
from core.report import LinearReport, QuantizationReport
from core.solver.multiplication import product_rates
from core.steps.opening import kernel_trouble
from core.steps.run import OpenRun


def account_tensors(run: OpenRun) -> TensorAccount:
    """Returns what becomes of every source tensor."""
    reader = run.request.reader
    written = {*run.records.consumed(), *rewritten(reader, run.manifest)}
    return account(reader, written, run.skeleton.names.unused, run.records.stored_ties())


def report_of(
    run: OpenRun, dropped: Mapping[str, str], stages: Mapping[str, float], profile: Profile
) -> QuantizationReport:
    """Returns the report. dropped: source tensors by name, with the reason. stages: seconds of those that ended."""
    rows = [row for index in range(run.manifest.blocks_done) for row in run.manifest.block_rows(index)]
    request = run.request
    calibration = request.calibration
    warnings = [*(calibration.warnings if calibration else ())]
    warnings += [message for message in (kernel_trouble(run.request),) if message is not None]
    warnings += starved_experts(rows, run.shapes).values()
    warnings += [f"Tensor {name} was dropped: {reason}." for name, reason in dropped.items()]
    return QuantizationReport(
        config=request.config.to_dict(),
        linears=tuple(LinearReport.from_dict(row) for row in rows),
        blocks=len(run.skeleton.blocks.modules),
        blocks_resumed=run.resumed,
        bits_per_weight=bits_per_weight(run.manifest, run.shapes),
        seconds_by_stage=dict(stages),
        peak_rss_bytes=peak_rss_bytes(),
        versions=versions(),
        calibration_sha256=calibration.sha256 if calibration else None,
        calibration_samples=calibration.samples if calibration else 0,
        calibration_tokens=calibration.tokens_NT.numel() if calibration else 0,
        warnings=tuple(warnings),
        provenance=dict(request.provenance),
        budget=None if request.plan is None else request.plan.to_dict(),
        seconds_by_work=profile.seconds(),
        devices=tuple(map(str, request.devices)),
    )


def assembly_of(run: OpenRun, tensors: TensorAccount, report: QuantizationReport, profile: Profile | None) -> Assembly:
    """Returns what writes the artifact. profile: given where the artifact is to hold it, with the machine's rates."""
    return Assembly(
        source_dir=run.request.source_dir,
        reader=run.request.reader,
        manifest=run.manifest,
        config=run.request.config,
        facts=run.facts,
        shapes=run.shapes,
        tensors=tensors,
        report=report,
        version=metadata.version("bitmill"),
        profile=None
        if profile is None
        else summarise(profile, product_rates(profile.operations(), *run.request.devices)),
    )
