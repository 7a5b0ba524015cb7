"""The estimate of time counts the work that a run does, and divides it by what the machine does in a second."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from core.calibration.windows import CalibrationWindows
from core.configs import AdaRoundConfig, AWQConfig, CalibrationConfig, GPTQConfig, QuantizationConfig, RTNConfig
from core.configs.values import Preset
from core.pipeline import Resources, quantize_checkpoint
from core.preflight.duration import GRAM_OF_RATE, input_sets, seconds_by_work
from core.preflight.rates import MachineRates
from core.preflight.resources import estimate
from core.preflight.solver_work import PRODUCTS_OF_RATE
from core.preflight.source import ModelFacts, inspect_source
from tests.core.preflight.folders import make_llama
from tests.core.tiny import random_tokens, write_tiny_model

RATES = MachineRates(
    cores=2.0,
    float32_products=1.8e11,
    bfloat16_products=4.3e11,
    grams=3.5e11,
    solved_steps=3.3e10,
    memory_bytes=1.7e11,
    hashed_bytes=2e9,
    numbers=6e7,
)
CALIBRATION = CalibrationConfig(samples=16, seq_len=32)


@pytest.fixture
def facts(tmp_path: Path) -> ModelFacts:
    """The facts of a tiny Llama."""
    return inspect_source(make_llama(tmp_path))


def seconds(
    facts: ModelFacts, config: QuantizationConfig, calibration: CalibrationConfig | None = CALIBRATION
) -> float:
    found = estimate(facts, config, calibration, rates=RATES).seconds
    assert found is not None
    return found


def test_linears_that_share_their_inputs_are_found_by_their_names(facts: ModelFacts) -> None:
    """A Llama's block has four input sets: q, k and v; o; gate and up; down."""
    found = input_sets(facts, 100, feeds_all=False)
    kinds = sorted((len(each.outputs), each.writes_stream) for each in found)
    assert kinds == sorted(facts.blocks * [(1, True), (1, True), (2, False), (3, False)])
    assert sum(each.elements for each in found) == sum(rows * columns for rows, columns in facts.linears.values())


def test_experts_see_a_part_of_the_tokens_unless_all_are_fed(tmp_path: Path) -> None:
    """Of the tokens of a dense model; routers are no linears of theirs."""
    mixture = inspect_source(write_tiny_model(tmp_path / "model", "mixtral"))
    routed, fed = (input_sets(mixture, 80, feeds_all=every) for every in (False, True))
    assert {each.tokens for each in fed} == {80}
    assert {each.tokens for each in routed} == {10, 80}


def test_presets_are_in_the_order_of_their_time(facts: ModelFacts) -> None:
    """Rounding to nearest is below fast, fast below default, default below best; tokens cost time."""
    presets = [GPTQConfig(group_size=32, **GPTQConfig.presets[preset]) for preset in Preset]
    found = [seconds(facts, config) for config in (RTNConfig(group_size=32), *presets)]
    assert found == sorted(found)
    assert len(set(found)) == 4
    more = CalibrationConfig(samples=64, seq_len=32)
    for config in (*presets, AWQConfig(group_size=32), AdaRoundConfig(group_size=32)):
        assert seconds(facts, config, more) > seconds(facts, config)
    assert seconds(facts, AdaRoundConfig(group_size=32, iterations=400)) > seconds(facts, AdaRoundConfig(group_size=32))


def test_a_machine_that_does_twice_as_much_takes_half_the_time(facts: ModelFacts) -> None:
    """Of every kind of work; without rates there is no time."""
    twice = MachineRates(**{name: value * (1 if name == "cores" else 2) for name, value in asdict(RATES).items()})
    config = GPTQConfig(group_size=32)
    for work, slow in seconds_by_work(facts, config, CALIBRATION, RATES).items():
        assert seconds_by_work(facts, config, CALIBRATION, twice)[work] == pytest.approx(slow / 2)
    assert estimate(facts, config, CALIBRATION).seconds is None


@pytest.mark.parametrize("preset", [*Preset])
def test_the_operations_that_are_counted_are_those_of_the_run(tmp_path: Path, preset: Preset) -> None:
    """Of Hessians, losses and refinement: at a rate of one operation a second, operations and seconds are the same."""
    source = write_tiny_model(tmp_path / "model", intermediate_size=224, num_hidden_layers=2)
    config = GPTQConfig(group_size=32, **GPTQConfig.presets[preset])
    tokens = random_tokens(128, 64)  # four batches: the float path runs beside every second one
    windows = CalibrationWindows(tokens_NT=tokens, sha256="0" * 64, tokens_available=tokens.numel())
    quantize_checkpoint(source, tmp_path / "out", config, windows, resources=Resources(profile=True))
    work = json.loads((tmp_path / "out" / "profile.json").read_text("utf-8"))["work"]
    counted = {kind: sum(amount["operations"].values()) for kind, amount in work.items()}
    free = dict.fromkeys(asdict(RATES), 1e30) | {
        "cores": 1.0,
        "float32_products": 1.0,
        "bfloat16_products": PRODUCTS_OF_RATE,
        "grams": 1.0,
    }
    calibration = CalibrationConfig(samples=128, seq_len=64)
    found = seconds_by_work(inspect_source(source), config, calibration, MachineRates(**free))
    assert found["hessian"] * GRAM_OF_RATE == pytest.approx(counted["hessian"], rel=0.02)
    assert found["loss"] * PRODUCTS_OF_RATE == pytest.approx(counted["loss"], rel=0.02)
    assert found["refine"] * PRODUCTS_OF_RATE <= 2.5 * counted["refine"]  # later rounds have fewer rows
    assert counted["refine"] <= 1.05 * found["refine"] * PRODUCTS_OF_RATE
