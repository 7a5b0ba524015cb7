"""A job with a budget, worked by the real engine: planned once, small enough, the same plan after a lost attempt."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core.budget.request import BudgetRequest
from core.calibration.windows import draw_windows
from core.configs import BudgetConfig, CalibrationConfig, GPTQConfig
from core.evaluation.loading import load_tokenizer
from store.jobs import JobState, NewCalibrationSet, NewJob
from tests.kernels import with_kernels
from tests.worker.bench import OWNER, Bench
from worker.measure import plan_under

LIMIT = 5.4
TEXT = "The mill turns, and the wheat becomes flour; the flour becomes bread. " * 60


@pytest.fixture
def real(bench: Bench) -> Bench:
    """A bench whose children run the real engine."""
    with_kernels(bench.services.settings.cache_dir)
    update = {"test_engine": None, "allow_test_hooks": False}
    return Bench(replace(bench.services, settings=bench.services.settings.model_copy(update=update)), bench.tiny_model)


def submit(bench: Bench) -> str:
    """Stores a job with a budget."""
    bench.model()
    sha256, size_bytes = bench.services.artifacts.put_bytes(TEXT.encode())
    with bench.services.database.transaction() as repository:
        stored = repository.add_calibration_set(
            NewCalibrationSet(
                owner_key_id=OWNER, name="mill", format="text", sha256=sha256, size_bytes=size_bytes, documents=1
            )
        )
        spec: dict[str, Any] = {
            "model": {"source": "path", "root": "models", "path": "tiny"},
            "quantization": GPTQConfig(group_size=32, mismatch_alpha=0.0).to_dict(),
            "calibration": {"set": stored.id, **CalibrationConfig(samples=4, seq_len=64).to_dict()},
            "budget": {"bits": LIMIT, "windows": 2},
            "targets": [],
        }
        return repository.add_job(NewJob(owner_key_id=OWNER, spec=spec, calibration_set_id=stored.id))[0].id


def test_a_job_is_planned_and_stays_under_its_budget(real: Bench):
    """The plan is kept with the job and told in its history; the artifact's config carries it, its report all of it."""
    job_id = submit(real)
    real.work()
    job = real.job(job_id)
    assert job.state is JobState.SUCCEEDED, job.error
    plan = job.resolved["budget_plan"]
    assert plan["bits"] <= LIMIT
    assert "budget_planned" in real.kinds(job_id)
    with real.services.database.reading() as repository:
        files = {file.name: file for file in repository.list_artifacts(job_id)}
    report = json.loads(b"".join(real.services.artifacts.open(files["quantization_report.json"].sha256)))
    assert report["budget"] == plan
    assert report["bits_per_weight"] == pytest.approx(plan["bits"])
    assert report["config"] == plan["config"]


def test_a_later_attempt_uses_the_plan_of_the_first(tiny_model: Path, tmp_path: Path):
    """What the job's row holds is taken over where it is of the same run, and made anew where it is not."""
    windows = draw_windows([TEXT], load_tokenizer(tiny_model), CalibrationConfig(samples=4, seq_len=64))
    request = BudgetRequest(
        config=GPTQConfig(group_size=32, mismatch_alpha=0.0), budget=BudgetConfig(bits=LIMIT, windows=2)
    )
    steps: list[object] = []
    first = plan_under(request, tiny_model, windows, None, tmp_path, steps.append)
    assert steps
    steps.clear()
    stored = json.loads(json.dumps(first.to_dict()))
    assert plan_under(request, tiny_model, windows, stored, tmp_path, steps.append) == first
    assert steps == []
    other = replace(request, budget=BudgetConfig(bits=6.0, windows=2))
    assert plan_under(other, tiny_model, windows, stored, tmp_path, steps.append).bits > first.bits
    assert steps
