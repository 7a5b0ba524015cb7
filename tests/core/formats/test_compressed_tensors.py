"""The second layout is the first one's transpose, and compressed-tensors reads it as the weights that GPTQ chose."""

from __future__ import annotations

import pytest
import torch
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.quantization import QuantizationConfig as ForeignConfig

from core.configs import BITS
from core.errors import ArtifactInvalidError
from core.formats.compressed_tensors import (
    compressed_config_dict,
    from_compressed_tensors,
    grid_of,
    shape_tensor,
    transposed_suffixes,
)
from core.formats.gptq import to_gptq_tensors
from core.preflight.rules import Grid
from core.weights import QuantizedWeight
from tests.core.formats.samples import random_weight

every_grid = pytest.mark.parametrize(
    ("bits", "sym", "group_size"), [(bits, sym, size) for bits in BITS for sym in (True, False) for size in (16, -1)]
)


def stored(weight: QuantizedWeight) -> dict[str, torch.Tensor]:
    tensors = to_gptq_tensors("m", weight, None)
    made = {f"m.{new}": tensors[f"m.{old}"].T for old, new in transposed_suffixes(sym=weight.sym).items()}
    return {**made, "m.weight_shape": shape_tensor(weight.out_features, weight.in_features)}


@every_grid
def test_reading_gives_back_the_weight(bits: int, group_size: int, *, sym: bool):
    """Codes, zeros and scales of both signs survive."""
    weight = random_weight(bits=bits, sym=sym, group_size=group_size)
    read = from_compressed_tensors("m", stored(weight), Grid(bits=bits, group_size=group_size, sym=sym))
    assert bool((weight.scales_OG < 0).any())
    assert torch.equal(read.codes_OI, weight.codes_OI)
    assert torch.equal(read.zeros_OG, weight.zeros_OG)
    assert torch.equal(read.scales_OG, weight.scales_OG)
    assert torch.equal(read.dequantize(), weight.dequantize())


@every_grid
def test_the_library_decompresses_to_the_same_weight(bits: int, group_size: int, *, sym: bool):
    """compressed-tensors' own reader, given our config, computes s (c - z); negative scales included."""
    weight = random_weight(bits=bits, sym=sym, group_size=group_size)
    config = compressed_config_dict({"m": Grid(bits=bits, group_size=group_size, sym=sym)}, (), meta={"a": 1})
    scheme = ForeignConfig.model_validate(config).config_groups["group_0"]
    tensors = {name.removeprefix("m."): tensor.contiguous() for name, tensor in stored(weight).items()}
    tensors["weight_scale"] = tensors["weight_scale"].float()
    decompressed = BaseCompressor.get_value_from_registry("pack-quantized").decompress(tensors, scheme)
    assert torch.equal(decompressed["weight"].float(), weight.dequantize())


def test_one_grid_is_a_rule_for_the_class_and_several_are_named():
    """A loader that joins linears would find the class before the parts' names."""
    four, eight = Grid(bits=4, group_size=32, sym=True), Grid(bits=8, group_size=-1, sym=False)
    alone = compressed_config_dict({"a.q": four, "a.o": four}, ["embed"], meta={})
    assert alone["config_groups"]["group_0"]["targets"] == ["Linear"]
    assert alone["ignore"] == ["embed", "lm_head"]
    mixed = compressed_config_dict({"a.q": four, "a.o": eight, "a.k": four}, [], meta={})
    assert [group["targets"] for group in mixed["config_groups"].values()] == [["a.k", "a.q"], ["a.o"]]
    for config in (alone, mixed):
        ForeignConfig.model_validate(config)
    assert grid_of(mixed["config_groups"], "a.q") == four
    assert grid_of(mixed["config_groups"], "a.o") == eight
    with pytest.raises(ArtifactInvalidError, match=r"a\.v"):
        grid_of(mixed["config_groups"], "a.v")


def test_tensors_that_do_not_belong_together_are_refused():
    """An absent tensor is named; so is a shape that the codes do not fill."""
    tensors = stored(random_weight(bits=4, sym=False))
    grid = Grid(bits=4, group_size=16, sym=False)
    for name in tensors:
        with pytest.raises(ArtifactInvalidError, match=name.removeprefix("m.")):
            from_compressed_tensors("m", {other: tensors[other] for other in tensors if other != name}, grid)
    with pytest.raises(ArtifactInvalidError):
        from_compressed_tensors("m", {**tensors, "m.weight_shape": shape_tensor(32, 128)}, grid)
