"""What a worker checks before the work: a job's options on what a model's headers say, and this machine's room for it.

The downloader asks before the weights are fetched, the child again once they are here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from core.budget.run import RunRequest
from core.configs import BudgetConfig, CalibrationConfig, config_from_dict
from core.preflight.resources import (
    MAX_SHARD_BYTES,
    check_disks,
    check_file_size,
    check_memory,
    estimate,
    generation_bytes,
)
from core.preflight.source import ModelFacts, inspect_source
from worker.protocol import Asked

BLOCK_BYTES = 512  # the unit of st_blocks, whatever the file system's own


def run_request(asked: Asked) -> RunRequest:
    """Returns the options as the engine takes them; raises InvalidConfigError."""
    return RunRequest(
        config=config_from_dict(asked.quantization),
        calibration=None if asked.calibration is None else CalibrationConfig.from_dict(asked.calibration),
        budget=None if asked.budget is None else BudgetConfig.from_dict(asked.budget),
        targets=asked.targets,
        formats=asked.formats,
    )


def check_attempt(
    request: RunRequest,
    model_dir: Path,
    work_dir: Path,
    *,
    writes_text: bool,
    fetches: Mapping[Path, int] | None = None,
) -> tuple[ModelFacts, list[str]]:
    """Returns the model's facts and warnings; raises an error of core where the attempt would end in it.

    writes_text: the whole float model is to write its calibration text. fetches: bytes that are still to be written
    elsewhere, by folder.
    """
    facts = inspect_source(model_dir)
    config, warnings = request.check(facts)
    needed = estimate(facts, config, request.calibration, request.formats, activation_memory=0)
    # What an earlier attempt left in the work folder counts as there already.
    left = folder_bytes(work_dir.parent)
    check_disks({**(fetches or {}), work_dir: max(needed.disk_bytes - left, 0)})
    check_file_size(min(needed.artifact_bytes, MAX_SHARD_BYTES))
    check_memory(max(needed.ram_bytes, generation_bytes(facts) if writes_text else 0))
    return facts, warnings


def folder_bytes(folder: Path) -> int:
    """Returns what the files below a folder take of the disk; nothing where it is absent."""
    return BLOCK_BYTES * sum(path.lstat().st_blocks for path in folder.rglob("*"))
