"""A config that cannot work on a model, or that a named loader cannot load, is refused with what would work."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from core.configs import CalibrationConfig, GPTQConfig, RTNConfig
from core.errors import InvalidConfigError, ModelRefusedError, TargetRefusedError
from core.preflight.checks import check_config, working_group_sizes
from core.preflight.source import ModelFacts, inspect_source
from tests.core.preflight.folders import VOCABULARY, make_llama, write_config, write_safetensors


@pytest.fixture
def facts(tmp_path: Path) -> ModelFacts:
    """A Llama of width 64 with 96 inputs of down_proj."""
    return inspect_source(make_llama(tmp_path))


def linear_of(folder: Path, out_features: int, in_features: int) -> ModelFacts:
    """Returns the facts of a model with one linear of this shape."""
    folder.mkdir(exist_ok=True)
    make_llama(folder)
    write_config(folder, num_hidden_layers=1)
    write_safetensors(
        folder / "model.safetensors",
        {
            "model.embed_tokens.weight": ("F32", (VOCABULARY, in_features)),
            "model.layers.0.q_proj.weight": ("F32", (out_features, in_features)),
        },
    )
    return inspect_source(folder)


def test_a_group_size_that_does_not_divide_is_refused_with_those_that_do(facts: ModelFacts):
    """Every named alternative passes; nothing is rounded to fit."""
    with pytest.raises(InvalidConfigError) as caught:
        check_config(GPTQConfig(group_size=64), facts)
    assert caught.value.field == "group_size"
    assert "96 inputs of model.layers.0.mlp.down_proj" in caught.value.reason
    assert caught.value.allowed == "-1, 16, 32"
    for size in map(int, caught.value.allowed.split(", ")):
        assert check_config(GPTQConfig(group_size=size), facts) == []


def test_working_group_sizes_are_all_common_divisors(facts: ModelFacts):
    """64 and 96 share 16 and 32 (smaller ones are not worth naming)."""
    assert working_group_sizes(facts) == [16, 32]


def test_a_width_that_does_not_fill_words_is_refused_with_those_that_do(tmp_path: Path):
    """8 outputs fill words of 4- and 8-bit codes, not of 2- and 3-bit codes."""
    facts = linear_of(tmp_path, 8, 64)
    assert check_config(GPTQConfig(bits=4, group_size=32), facts) == []
    with pytest.raises(InvalidConfigError) as caught:
        check_config(GPTQConfig(bits=3, group_size=32), facts)
    assert caught.value.field == "bits"
    assert caught.value.allowed == "4, 8"


def test_a_shape_that_no_width_fits_says_so(tmp_path: Path):
    """The remedy is honest where there is none."""
    with pytest.raises(InvalidConfigError, match="no width can be packed"):
        check_config(GPTQConfig(bits=8, group_size=-1), linear_of(tmp_path, 5, 64))


def test_windows_longer_than_the_model_are_refused(facts: ModelFacts):
    """A model with learned positions would fail in the middle of the run."""
    with pytest.raises(InvalidConfigError) as caught:
        check_config(GPTQConfig(group_size=32), facts, calibration=CalibrationConfig(seq_len=257))
    assert caught.value.field == "calibration.seq_len"
    assert "256" in caught.value.allowed


def test_fewer_tokens_than_inputs_is_a_warning(facts: ModelFacts):
    """A singular Hessian is no error, but the user is told, with the linear; enough tokens say nothing."""
    few = check_config(GPTQConfig(group_size=32), facts, calibration=CalibrationConfig(samples=1, seq_len=95))
    assert len(few) == 1
    assert "95 calibration tokens" in few[0]
    assert "down_proj" in few[0]
    assert check_config(GPTQConfig(group_size=32), facts, calibration=CalibrationConfig(samples=1, seq_len=96)) == []
    assert check_config(RTNConfig(group_size=32), facts, calibration=CalibrationConfig(samples=1, seq_len=95)) == []


def test_a_target_that_cannot_load_is_refused_with_the_nearest_that_it_can(facts: ModelFacts):
    """The nearest combination really passes."""
    with pytest.raises(TargetRefusedError) as caught:
        check_config(GPTQConfig(bits=3, group_size=32, sym=False), facts, ["gptqmodel", "vllm"])
    assert caught.value.target == "vllm"
    assert caught.value.field == "bits"
    assert "sym=false" in caught.value.reason
    assert caught.value.nearest == "bits=4, group_size=32, sym=true"
    check_config(GPTQConfig(bits=4, group_size=32, sym=True), facts, ["vllm"])


def test_a_format_that_the_target_takes_is_enough(facts: ModelFacts):
    """The refusal names the other format where the same grid loads in it; asking for both passes, so does the other."""
    config = GPTQConfig(bits=4, group_size=32, sym=False)
    with pytest.raises(TargetRefusedError) as caught:
        check_config(config, facts, ["vllm"])
    assert caught.value.nearest == "formats=compressed-tensors with bits=4, group_size=32, sym=false"
    check_config(config, facts, ["vllm", "gptqmodel"], formats=["gptq", "compressed-tensors"])
    with pytest.raises(TargetRefusedError, match="gptqmodel"):
        check_config(config, facts, ["vllm", "gptqmodel"], formats=["compressed-tensors"])


def test_unknown_and_absent_formats_are_refused(facts: ModelFacts):
    """At least one, and only those that can be written."""
    for formats in ([], ["awq"]):
        with pytest.raises(InvalidConfigError, match="formats"):
            check_config(GPTQConfig(group_size=32), facts, formats=formats)


def test_a_slower_kernel_is_a_warning(facts: ModelFacts):
    """96 inputs do not fill Marlin's tiles: loadable, and said."""
    warnings = check_config(GPTQConfig(group_size=32), facts, ["vllm"])
    assert any("fastest kernel" in warning and "128" in warning for warning in warnings)


def test_an_unknown_target_is_refused(facts: ModelFacts):
    """A loader that we have no rules for cannot be promised."""
    with pytest.raises(InvalidConfigError, match="targets"):
        check_config(GPTQConfig(group_size=32), facts, ["llama.cpp"])


def test_a_model_without_linears_is_refused(tmp_path: Path):
    """Blocks that hold vectors only leave nothing to do."""
    make_llama(tmp_path)
    write_config(tmp_path, num_hidden_layers=1)
    tensors = {"model.embed_tokens.weight": ("F32", (VOCABULARY, 64)), "model.layers.0.norm.weight": ("F32", (64,))}
    write_safetensors(tmp_path / "model.safetensors", tensors)
    with pytest.raises(ModelRefusedError, match="no linear"):
        check_config(GPTQConfig(), inspect_source(tmp_path))


def test_experts_in_one_tensor_are_a_warning(tmp_path: Path):
    """What stays in float is said before the run."""
    make_llama(tmp_path)
    write_config(tmp_path, num_hidden_layers=1)
    write_safetensors(
        tmp_path / "model.safetensors",
        {
            "model.embed_tokens.weight": ("F32", (VOCABULARY, 64)),
            "model.layers.0.self_attn.q_proj.weight": ("F32", (64, 64)),
            "model.layers.0.mlp.experts.down_proj": ("F32", (2, 64, 64)),
            "model.layers.0.mlp.gate.weight": ("F32", (2, 64)),
        },
    )
    facts = inspect_source(tmp_path)
    assert list(facts.linears) == ["model.layers.0.self_attn.q_proj"]
    assert "stay in float" in check_config(GPTQConfig(group_size=32), facts)[0]


@pytest.mark.parametrize(
    ("family", "target"), [("gpt2", "transformers"), ("phi3", "gptqmodel"), ("gpt_neox", "gptqmodel")]
)
def test_a_loader_that_fails_on_a_family_is_refused_for_it(family: str, target: str, facts: ModelFacts):
    """What tests/loaders shows to fail is refused when it is named as a target, and only then."""
    of_family = replace(facts, model_type=family)
    config = GPTQConfig(bits=4, group_size=32)
    others = {"transformers", "gptqmodel"} - {target}
    assert check_config(config, of_family, sorted(others)) == []
    with pytest.raises(TargetRefusedError) as caught:
        check_config(config, of_family, [target])
    assert (caught.value.target, caught.value.field) == (target, "model_type")
