"""Mixed grids: patterns that decide nothing are refused, and each loader is asked about the whole mixture."""

from __future__ import annotations

import pytest

from core.configs import Format, RTNConfig
from core.errors import InvalidConfigError
from core.preflight.mixed import linear_grids, loads_mixed, mixed_violations, refuse_idle_patterns
from core.preflight.rules import Grid, Target
from core.preflight.targets import family_refusal

SHAPES = {
    f"model.layers.{block}.{name}": shape
    for block in range(2)
    for name, shape in {
        "self_attn.q_proj": (128, 128),
        "self_attn.k_proj": (64, 128),
        "self_attn.v_proj": (64, 128),
        "self_attn.o_proj": (128, 128),
        "mlp.gate_proj": (256, 128),
        "mlp.up_proj": (256, 128),
        "mlp.down_proj": (128, 256),
    }.items()
}
BOTH = tuple(Format)


def config(**dynamic: dict[str, object]) -> RTNConfig:
    return RTNConfig(group_size=64, dynamic=dynamic)


def test_each_linear_has_its_grid():
    """None is float."""
    grids = linear_grids(config(**{r"+:.*\.down_proj": {"bits": 8}, r"-:.*\.o_proj": {}}), SHAPES)
    assert grids["model.layers.1.mlp.down_proj"] == Grid(bits=8, group_size=64, sym=True)
    assert grids["model.layers.1.self_attn.o_proj"] is None
    assert grids["model.layers.1.mlp.up_proj"] == Grid(bits=4, group_size=64, sym=True)


@pytest.mark.parametrize(
    ("dynamic", "words"),
    [
        ({"+:lm_head": {"bits": 8}}, "matches no linear"),
        ({r"+:.*\.mlp\.": {"bits": 8}, r"+:.*\.up_proj": {"bits": 3}}, "earlier pattern"),
        ({"-:model": {}}, "skips every linear"),
    ],
)
def test_a_pattern_that_decides_nothing_is_refused(dynamic: dict[str, dict[str, object]], words: str):
    """A typo must not become a model that was quantized otherwise than asked."""
    with pytest.raises(InvalidConfigError, match=words):
        refuse_idle_patterns(config(**dynamic), SHAPES)


def test_vllm_needs_the_parts_of_a_joined_matrix_alike_and_its_joined_name_matched():
    """q, k and v on different grids have no way in; GPTQ patterns must say the same of qkv_proj."""
    split = config(**{r"+:.*\.v_proj": {"bits": 8}})
    for layout in BOTH:
        assert not loads_mixed(Target.VLLM, split, SHAPES, layout)
    unjoined = config(**{r"+:.*\.(q|k|v)_proj": {"bits": 8}})
    assert "qkv_proj" in mixed_violations(Target.VLLM, unjoined, SHAPES, Format.GPTQ)[0].detail
    assert not loads_mixed(Target.VLLM, unjoined, SHAPES, Format.GPTQ)
    assert loads_mixed(Target.VLLM, unjoined, SHAPES, Format.COMPRESSED_TENSORS)
    joined = config(**{r"+:.*\.(q|k|v|qkv)_proj": {"bits": 8}, r"-:.*\.down_proj": {}})
    for layout in BOTH:
        assert loads_mixed(Target.VLLM, joined, SHAPES, layout)


def test_transformers_reads_mixtures_only_as_symmetric_compressed_tensors():
    """Its GPTQ loader knows one grid; dequantize=True, which asymmetric grids need, knows one too."""
    eight = config(**{r"+:.*\.down_proj": {"bits": 8}})
    assert not loads_mixed(Target.TRANSFORMERS, eight, SHAPES, Format.GPTQ)
    assert loads_mixed(Target.TRANSFORMERS, eight, SHAPES, Format.COMPRESSED_TENSORS)
    asymmetric = config(**{r"+:.*\.down_proj": {"sym": False}})
    assert not loads_mixed(Target.TRANSFORMERS, asymmetric, SHAPES, Format.COMPRESSED_TENSORS)
    assert loads_mixed(Target.GPTQMODEL, asymmetric, SHAPES, Format.GPTQ)


def test_each_grid_is_checked_on_its_linears():
    """A width that the loader does not know is found behind a pattern."""
    three = config(**{r"+:.*\.down_proj": {"bits": 3}})
    assert any("bits=3" in violation.detail for violation in mixed_violations(Target.VLLM, three, SHAPES, Format.GPTQ))


EXPERT_SHAPES = {
    f"model.layers.{block}.mlp.experts.{expert}.{name}": (128, 128)
    for block in range(2)
    for expert in range(4)
    for name in ("gate_proj", "up_proj", "down_proj")
}


def test_vllm_needs_all_experts_of_a_block_alike():
    """They are one module to it, named `experts`; whole blocks may differ, and the patterns must match that name."""
    shapes = {**SHAPES, **EXPERT_SHAPES}
    for layout in BOTH:
        assert loads_mixed(Target.VLLM, config(**{r"+:.*layers\.1\.": {"bits": 8}}), shapes, layout)
        assert not loads_mixed(Target.VLLM, config(**{r"+:.*experts\.2\.": {"bits": 8}}), shapes, layout)
        assert not loads_mixed(Target.VLLM, config(**{r"-:.*experts\.\d+\.down_proj": {}}), shapes, layout)
    unjoined = config(**{r"+:.*experts\.\d": {"bits": 8}})
    assert "mlp.experts, which it is joined" in mixed_violations(Target.VLLM, unjoined, shapes, Format.GPTQ)[0].detail
    assert loads_mixed(Target.VLLM, unjoined, shapes, Format.COMPRESSED_TENSORS)


@pytest.mark.parametrize(
    ("family", "target", "layouts"),
    [
        ("mixtral", Target.GPTQMODEL, ()),
        ("mixtral", Target.TRANSFORMERS, (Format.COMPRESSED_TENSORS,)),
        ("phimoe", Target.TRANSFORMERS, ()),
        ("olmoe", Target.GPTQMODEL, (Format.GPTQ,)),
        ("qwen3_moe", Target.TRANSFORMERS, BOTH),
        ("mixtral", Target.VLLM, BOTH),
    ],
)
def test_families_of_experts_have_their_loaders(family: str, target: Target, layouts: tuple[Format, ...]):
    """What each loader does with each family was tried; a refusal is about one layout only."""
    loaded = [layout for layout in Format if family_refusal(target, family, layout, EXPERT_SHAPES) is None]
    assert [layout for layout in loaded if target is not Target.GPTQMODEL or layout is Format.GPTQ] == list(layouts)


def test_a_dense_block_among_experts_can_be_what_a_loader_lacks():
    """GPTQModel loads Qwen3-MoE whose blocks all have experts, and no other."""
    dense = {**EXPERT_SHAPES, "model.layers.2.mlp.up_proj": (128, 128)}
    assert family_refusal(Target.GPTQMODEL, "qwen3_moe", Format.GPTQ, EXPERT_SHAPES) is None
    assert family_refusal(Target.GPTQMODEL, "qwen3_moe", Format.GPTQ, dense) is not None
