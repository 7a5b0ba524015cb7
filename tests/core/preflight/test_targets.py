"""The loaders' table: complete, self-consistent, and the same as what gptqmodel and vLLM state about themselves."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.configs import BITS, Format
from core.errors import InvalidConfigError
from core.preflight.loader_table import RULES
from core.preflight.rules import Grid, Severity, Target
from core.preflight.targets import codes_per_word, fused_out_features, loads, nearest_grid, parse_targets, violations

SHAPES = {"a.q_proj": (64, 128), "a.k_proj": (32, 128), "a.v_proj": (32, 128), "a.o_proj": (128, 128)}
grids = st.builds(
    Grid,
    bits=st.sampled_from(BITS),
    group_size=st.sampled_from((-1, 16, 32, 48, 64, 128, 256)),
    sym=st.booleans(),
)


def refused(target: Target, grid: Grid) -> list[str]:
    return [
        violation.rule.field for violation in violations(target, grid, SHAPES) if violation.severity == Severity.REFUSE
    ]


def test_every_row_has_its_source_and_version():
    """A rule that nobody can look up is no rule; every target has some."""
    for rule in RULES:
        assert rule.versions
        assert rule.source
        assert rule.reason
    assert {rule.target for rule in RULES} == set(Target)


@pytest.mark.parametrize(
    ("target", "grid", "fields"),
    [
        (Target.VLLM, Grid(bits=4, group_size=128, sym=True), []),
        (Target.VLLM, Grid(bits=8, group_size=-1, sym=True), []),
        (Target.VLLM, Grid(bits=4, group_size=128, sym=False), ["sym"]),
        (Target.VLLM, Grid(bits=3, group_size=128, sym=True), ["bits"]),
        (Target.VLLM, Grid(bits=2, group_size=16, sym=False), ["bits", "sym", "group_size"]),
        (Target.GPTQMODEL, Grid(bits=3, group_size=16, sym=False), []),
        (Target.GPTQMODEL, Grid(bits=4, group_size=48, sym=True), ["group_size"]),
        (Target.TRANSFORMERS, Grid(bits=2, group_size=128, sym=False), []),
    ],
)
def test_what_is_known_of_the_loaders(target: Target, grid: Grid, fields: list[str]):
    """Spot checks, written from the loaders' documentation and not from the table."""
    assert refused(target, grid) == fields


def test_a_group_as_wide_as_every_row_is_taken():
    """GPTQModel takes a group size outside its list where it is the whole row of every linear."""
    whole = Grid(bits=4, group_size=96, sym=True)
    assert not violations(Target.GPTQMODEL, whole, {"a.o_proj": (64, 96)})
    assert violations(Target.GPTQMODEL, whole, {"a.o_proj": (64, 96), "a.up_proj": (64, 192)})


def test_shapes_are_judged_joined_where_the_loader_joins_them():
    """K and v of 32 outputs are no Marlin tiles, q, k and v together are."""
    assert fused_out_features(SHAPES) == {"a.q_proj": 128, "a.k_proj": 128, "a.v_proj": 128, "a.o_proj": 128}
    assert not violations(Target.VLLM, Grid(bits=4, group_size=32, sym=True), SHAPES)
    alone = violations(Target.VLLM, Grid(bits=4, group_size=32, sym=True), {"a.k_proj": (32, 128)})
    assert [violation.severity for violation in alone] == [Severity.SLOWER]


@given(st.sampled_from(list(Target)), grids)
def test_the_nearest_grid_is_loadable_and_is_the_grid_itself_where_that_is(target: Target, grid: Grid):
    """A recommendation is never refused in turn, and nothing is changed without need."""
    nearest = nearest_grid(target, grid, SHAPES)
    assert nearest is not None
    assert not refused(target, nearest)
    if not refused(target, grid):
        assert nearest == grid


def test_there_may_be_no_nearest_grid():
    """A shape that no option helps has no recommendation."""
    assert nearest_grid(Target.VLLM, Grid(bits=4, group_size=128, sym=True), {"a.o_proj": (5, 128)}) is None


def test_targets_are_parsed_without_repetition():
    """Order is the user's; a second mention adds nothing; an unknown name is refused."""
    assert parse_targets(["vllm", "gptqmodel", "vllm"]) == (Target.VLLM, Target.GPTQMODEL)
    with pytest.raises(InvalidConfigError) as caught:
        parse_targets(["vLLM"])
    assert caught.value.allowed == "vllm, transformers, gptqmodel"


@given(st.sampled_from(BITS))
def test_codes_fill_whole_words(bits: int):
    """The unit is the least count of codes whose bits are whole 32-bit words."""
    unit = codes_per_word(bits)
    assert unit * bits % 32 == 0
    assert all(count * bits % 32 for count in range(1, unit))


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("sym", [True, False])
def test_vllm_takes_2_and_3_bits_and_asymmetric_grids_only_as_compressed_tensors(bits: int, *, sym: bool):
    """Each combination has the way in that vLLM's two loaders have, and 2 and 3 bits with zeros have none."""
    grid = Grid(bits=bits, group_size=32, sym=sym)
    assert loads(Target.VLLM, grid, SHAPES) is (sym and bits in {4, 8})
    assert loads(Target.VLLM, grid, SHAPES, Format.COMPRESSED_TENSORS) is (sym or bits in {4, 8})
    assert not loads(Target.GPTQMODEL, grid, SHAPES, Format.COMPRESSED_TENSORS)
