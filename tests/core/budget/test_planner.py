"""A plan keeps its promises on a real model: the artifact is as small as said, joined linears are alike, targets load
it, the same request gives the same plan, and wider grids are predicted to be better.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
import torch

from core.budget.plan import BudgetPlan
from core.budget.planner import plan_budget
from core.budget.request import BudgetRequest, check_budget
from core.budget.units import budget_task
from core.calibration.windows import CalibrationWindows
from core.checkpoint.layout import read_entries
from core.configs import BudgetConfig, Format, GPTQConfig, QuantizationConfig, RTNConfig
from core.errors import InvalidConfigError, RunStoppedError, TargetRefusedError
from core.events import StageAdvanced
from core.overrides import Overrides
from core.pipeline import quantize_checkpoint
from core.preflight.source import inspect_source
from tests.core.tiny import random_tokens, write_tiny_model

CONFIG = GPTQConfig(group_size=32, mismatch_alpha=0.0)
WINDOWS = CalibrationWindows(tokens_NT=random_tokens(8, 32), sha256="0" * 64, tokens_available=256)
PACKED = (".qweight", ".scales", ".qzeros", ".g_idx", ".weight_packed", ".weight_scale", ".weight_shape")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny llama of three blocks."""
    return write_tiny_model(tmp_path_factory.mktemp("model") / "llama")


@pytest.fixture(scope="module")
def made(model: Path) -> BudgetPlan:
    """A plan of 5.2 bits."""
    return plan(model)


def members(model: Path) -> list[list[str]]:
    """Returns the linears of each unit, in the order of a plan's units."""
    task = budget_task(CONFIG, BudgetConfig(bits=8.0), inspect_source(model), (), (Format.GPTQ,))
    return [list(unit.shapes) for unit in task.units]


def plan(model: Path, config: QuantizationConfig = CONFIG, **options: object) -> BudgetPlan:
    """Plans a budget of 5.2 bits unless told otherwise."""
    given = {"bits": 5.2, **options}
    targets, formats = given.pop("targets", ()), given.pop("formats", (Format.GPTQ,))
    request = BudgetRequest(config=config, budget=BudgetConfig(**given), targets=targets, formats=formats)  # type: ignore[arg-type]
    return plan_budget(model, request, WINDOWS)


@pytest.mark.parametrize(("layout", "sym"), [(Format.GPTQ, True), (Format.COMPRESSED_TENSORS, False)])
def test_the_artifact_is_within_the_budget_and_as_large_as_said(
    model: Path, tmp_path: Path, layout: Format, *, sym: bool
):
    """The packed tensors' bytes on disk are what the plan says, below the limit; the plan is in the report."""
    config = GPTQConfig(group_size=32, mismatch_alpha=0.0, sym=sym)
    made = plan(model, config, formats=(layout,))
    assert len({(unit.bits, unit.group_size) for unit in made.units}) > 1
    report = quantize_checkpoint(model, tmp_path / "out", made.config, WINDOWS, formats=(layout,), plan=made)
    assert report.budget == made.to_dict()
    entries = read_entries(tmp_path / "out" / "model.safetensors")
    packed = sum(entry.nbytes for name, entry in entries.items() if name.endswith(PACKED) or "zero_point" in name)
    assert packed == made.quantized_bytes <= made.limit_bytes
    weights = sum(unit.weights for unit in made.units)
    assert 8 * packed / weights == pytest.approx(made.bits)
    assert made.bits <= 5.2


def test_a_limit_in_bytes_holds_for_the_weight_files(model: Path, tmp_path: Path):
    """Everything in the safetensors file counts: kept tensors and headers too; and the room is used."""
    limit = 230_000
    made = plan(model, bits=0.0, bytes=limit)
    quantize_checkpoint(model, tmp_path / "out", made.config, WINDOWS)
    size = sum(file.stat().st_size for file in (tmp_path / "out").glob("*.safetensors"))
    assert 0.9 * limit < size <= limit


def test_joined_linears_are_on_one_grid_and_vllm_takes_the_whole(model: Path):
    """For a target only widths and sizes that it loads are chosen, and its joined linears are alike."""
    made = plan(model, targets=("vllm",), lowest_bits=2, bits=6.5)
    assert {unit.bits for unit in made.units} <= {4, 8}
    assert {unit.group_size for unit in made.units} <= {-1, 32, 64, 128}
    for unit, names in zip(made.units, members(model), strict=True):
        assert len({repr(made.config.for_linear(name)) for name in names}) == 1
        if unit.family.endswith("qkv_proj"):
            assert {name.rpartition(".")[2] for name in names} == {"q_proj", "k_proj", "v_proj"}


def test_a_loader_of_one_grid_gets_one_grid_and_the_job_is_told(model: Path):
    """Transformers reads no dynamic in the GPTQ layout: the best single grid is taken, with a warning."""
    made = plan(model, targets=("transformers",))
    assert not made.mixed
    assert not made.config.dynamic
    assert any("transformers" in warning for warning in made.warnings)
    [best] = [point for point in made.uniform if point.bits == pytest.approx(made.bits)]
    fitting = [point for point in made.uniform if point.bits <= 5.2]
    assert best.divergence == min(point.divergence for point in fitting)


def test_where_a_users_patterns_stand_in_the_way_of_a_loader_the_refusal_is_told(model: Path):
    """A mixture that the user asked for is not taken back."""
    config = GPTQConfig(group_size=32, dynamic=Overrides({r"-:model\.layers\.0\.": {}}))
    with pytest.raises(TargetRefusedError):
        plan(model, config, targets=("transformers",))


def test_a_users_patterns_keep_what_they_say_and_count(model: Path):
    """What a pattern decides is no choice of the budget's; its bytes are part of the size."""
    config = GPTQConfig(
        group_size=32,
        dynamic=Overrides({r"+:model\.layers\.1\.mlp\.down_proj": {"bits": 8}, r"-:model\.layers\.0\.": {}}),
    )
    made = plan(model, config, bits=6.0)
    assert made.config.for_linear("model.layers.0.mlp.up_proj") is None
    fixed = made.config.for_linear("model.layers.1.mlp.down_proj")
    assert fixed is not None
    assert fixed.bits == 8
    assert made.bits <= 6.0
    assert not any((unit.block, unit.family) == (1, "mlp.down_proj") for unit in made.units)


def test_the_config_says_for_each_linear_what_the_plan_says(model: Path, made: BudgetPlan):
    """Patterns match the linears of their units and no other."""
    for unit, names in zip(made.units, members(model), strict=True):
        for name in names:
            part = made.config.for_linear(name)
            assert part is not None
            assert (part.bits, part.group_size) == (unit.bits, unit.group_size)


def test_a_plan_is_repeatable_and_survives_json(model: Path, made: BudgetPlan):
    """Equal requests give equal plans but for the clock; what is written is what is read."""
    again = plan(model)
    assert again.config == made.config
    assert again.units == made.units
    assert again.key == made.key != plan(model, bits=5.0).key
    assert BudgetPlan.from_dict(json.loads(json.dumps(made.to_dict()))) == made


def test_more_bits_never_predict_more_divergence(model: Path):
    """Along the curve divergence falls; a wider grid predicts less; mixtures beat single grids."""
    made = plan(model, lowest_bits=2)
    for before, after in itertools.pairwise(made.curve):
        assert before.bits < after.bits
        assert before.divergence > after.divergence
    by_grid = {point.grid: point.divergence for point in made.uniform}
    for size in ("groups of 32", "whole rows"):
        assert by_grid[f"2 bits, {size}"] > by_grid[f"3 bits, {size}"] > by_grid[f"4 bits, {size}"]
    for point in made.uniform:
        reached = [other.divergence for other in made.curve if other.bits <= point.bits]
        assert min(reached) <= point.divergence * 1.1


def test_what_does_not_fit_is_refused_with_the_least_that_does(model: Path):
    """Below the smallest grids the refusal names the field and the least; a method without calibration is refused."""
    facts = inspect_source(model)
    with pytest.raises(InvalidConfigError, match=r"budget\.bits.*bits from 3\.") as refused:
        budget_task(CONFIG, BudgetConfig(bits=2.5), facts, (), (Format.GPTQ,))
    assert refused.value.field == "budget.bits"
    with pytest.raises(InvalidConfigError, match="bytes from"):
        budget_task(CONFIG, BudgetConfig(bytes=1000), facts, (), (Format.GPTQ,))
    with pytest.raises(InvalidConfigError, match="no limit"):
        BudgetConfig()
    with pytest.raises(InvalidConfigError, match="rtn"):
        BudgetRequest(config=RTNConfig(group_size=32), budget=BudgetConfig(bits=5.0)).task(facts)


@pytest.mark.parametrize("targets", [(), ("transformers",), ("vllm", "gptqmodel")])
def test_what_headers_tell_fills_the_budget_and_suits_the_targets(model: Path, targets: tuple[str, ...]):
    """Before any measuring, the check accepts what a plan will accept, and its config is about as large."""
    request = BudgetRequest(config=CONFIG, budget=BudgetConfig(bits=5.2), targets=targets)
    config, warnings = check_budget(request, inspect_source(model), None)
    planned = plan(model, targets=targets)
    assert bool(config.dynamic) == planned.mixed
    assert any("one grid" in warning for warning in warnings) == (not planned.mixed)


def test_it_tells_how_far_it_is_and_stops_when_asked(model: Path, tmp_path: Path):
    """Every step is an event; a stop leaves no scratch file."""
    events: list[object] = []
    request = BudgetRequest(config=CONFIG, budget=BudgetConfig(bits=5.2))
    plan_budget(model, request, WINDOWS, on_event=events.append)
    steps = [event.done for event in events if isinstance(event, StageAdvanced)]
    assert steps == list(range(1, 8))
    with pytest.raises(RunStoppedError):
        plan_budget(model, request, WINDOWS, scratch_dir=tmp_path, should_stop=lambda: True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("family", ["gpt2", "gemma2", "mixtral", "qwen3_moe"])
def test_other_families_can_be_planned(tmp_path: Path, family: str):
    """Nothing hangs on one family's names; every linear has figures that are finite and not negative."""
    folder = write_tiny_model(tmp_path / family, family)
    made = plan(folder)
    facts = inspect_source(folder)
    assert sum(unit.linears for unit in made.units) == len(facts.linears)
    assert sum(unit.weights for unit in made.units) == sum(rows * columns for rows, columns in facts.linears.values())
    assert all(unit.divergence >= 0 and torch.isfinite(torch.tensor(unit.divergence)) for unit in made.units)
    assert sum(unit.divergence for unit in made.units) > 0


def test_the_documented_example_runs(model: Path, tmp_path: Path):
    """The second piece of code of docs/python.md plans a budget and quantizes under it."""
    page = (Path(__file__).parents[3] / "docs" / "python.md").read_text()
    code = page.split("```python\n")[2].split("```")[0].replace("bits=3.5", "bits=5.2")
    exec(code, {"source_dir": model, "out_dir": tmp_path / "out", "windows": WINDOWS})  # noqa: S102 - our own page
    assert json.loads((tmp_path / "out" / "quantization_report.json").read_text())["budget"]["bits"] <= 5.2
