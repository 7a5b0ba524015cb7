"""Solved linears in the GPTQ checkpoint format."""

from __future__ import annotations

import hashlib

import pytest
import torch

from core.checkpoint.layout import tensors_stream
from core.errors import ArtifactInvalidError, InvalidConfigError
from core.formats.gptq import checkpoint_format, from_gptq_tensors, to_gptq_tensors
from core.weights import QuantizedWeight
from tests.core.formats.samples import random_weight
from tests.reference.unpacker import dequantized_weight

GRIDS = [(bits, sym) for bits in (2, 3, 4, 8) for sym in (True, False)]


@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize("group_size", [16, 32, -1])
@pytest.mark.parametrize(("bits", "sym"), GRIDS)
def test_reading_gives_what_was_written(bits: int, sym: bool, group_size: int, shuffled: bool):
    """Every field of the weight survives, for all widths, both versions, and groups in any order."""
    weight = random_weight(bits=bits, sym=sym, group_size=group_size, shuffled=shuffled)
    version = checkpoint_format(sym=sym)
    tensors = to_gptq_tensors("m", weight, None)
    read = from_gptq_tensors("m", tensors, bits=bits, group_size=group_size, sym=sym, version=version)
    for name in ("codes_OI", "scales_OG", "zeros_OG", "g_idx_I"):
        assert torch.equal(getattr(read, name), getattr(weight, name)), name
    assert (read.bits, read.group_size, read.sym) == (bits, group_size, sym)


@pytest.mark.parametrize(("bits", "sym"), GRIDS)
def test_independent_reader_finds_the_same_weight(bits: int, sym: bool):
    """The plain-Python reader of the format reconstructs exactly the weight that the engine means."""
    weight = random_weight(bits=bits, sym=sym, shuffled=True)
    tensors = to_gptq_tensors("m", weight, None)
    assert torch.equal(
        dequantized_weight("m", tensors, bits, checkpoint_format(sym=sym)), weight.dequantize(torch.float64)
    )


@pytest.mark.parametrize(("bits", "sym"), GRIDS)
def test_shapes_and_dtypes(bits: int, sym: bool):
    """The tensors are those of the format's table."""
    weight = random_weight(bits=bits, sym=sym, out_features=32, in_features=64, group_size=16)
    tensors = to_gptq_tensors("a.b", weight, torch.ones(32, dtype=torch.bfloat16))
    assert {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()} == {
        "a.b.qweight": ((64 * bits // 32, 32), torch.int32),
        "a.b.qzeros": ((4, 32 * bits // 32), torch.int32),
        "a.b.scales": ((4, 32), torch.float16),
        "a.b.g_idx": ((64,), torch.int32),
        "a.b.bias": ((32,), torch.float16),
    }
    assert all(tensor.is_contiguous() for tensor in tensors.values())


@pytest.mark.parametrize(
    ("bits", "words"),
    [(2, {0x55555555}), (4, {0x77777777}), (8, {0x7F7F7F7F}), (3, {0xDB6DB6DB, 0xB6DB6DB6, 0x6DB6DB6D})],
)
def test_symmetric_zeros_are_stored_less_one(bits: int, words: set[int]):
    """Version 1 stores zero-1: the words that every loader knows."""
    tensors = to_gptq_tensors("m", random_weight(bits=bits, sym=True), None)
    assert {word & 0xFFFFFFFF for word in tensors["m.qzeros"].flatten().tolist()} == words


def test_asymmetric_zeros_are_stored_as_they_are():
    """Version 2 stores the zero itself, so that a zero of 0 does not borrow from its neighbours."""
    weight = random_weight(bits=4, sym=False)
    weight.zeros_OG.fill_(8)
    assert {w & 0xFFFFFFFF for w in to_gptq_tensors("m", weight, None)["m.qzeros"].flatten().tolist()} == {0x88888888}
    weight.zeros_OG.fill_(0)
    assert not to_gptq_tensors("m", weight, None)["m.qzeros"].any()


def hand_made_weight(bits: int, *, sym: bool) -> QuantizedWeight:
    """Returns a weight that is a formula of its indices: no random generator stands behind the golden bytes."""
    codes = (torch.arange(32)[:, None] * 5 + torch.arange(64) * 3) % 2**bits
    zeros = (torch.arange(32)[:, None] + torch.arange(2) * 7) % 2**bits
    return QuantizedWeight(
        codes_OI=codes.to(torch.uint8),
        scales_OG=((torch.arange(64).reshape(32, 2) - 31.5) / 64).half(),
        zeros_OG=torch.full((32, 2), 2 ** (bits - 1), dtype=torch.uint8) if sym else zeros.to(torch.uint8),
        g_idx_I=torch.arange(64, dtype=torch.int32) // 32,
        bits=bits,
        group_size=32,
        sym=sym,
    )


GOLDEN = {
    (2, True): "e1c998e928e24a3513c56595032b65df9a45567bcb9da8ce4e55d655350316ed",
    (2, False): "5fe73fba46b1fe30e6d61954b689400ce710ad57e7f2d7e9f0f37130ef8aecca",
    (3, True): "129c86a760cfa21f44229ab36cddc8d6114352988992bc848838c9aeb3c7beeb",
    (3, False): "9a94dd6c9917d74387878712fb5de7098cd5e1490d44d0bdf8f36eae418e6da2",
    (4, True): "3b55c4cb96c9a108dcf41ae7a900dd209ba32cd8b93699dc2c08b8d861d3d47d",
    (4, False): "371695095b24cc986872f9d143a54637819295632c22b30881e36fcd5fa4d833",
    (8, True): "0f3f2472385f434c4be842b2044bde9115bf319e4ea1b493f9e223e478197636",
    (8, False): "4719a9ceaaa966818afbc0012bf560e885cb2e143a19b3f152bd44e26526192e",
}


@pytest.mark.parametrize(("bits", "sym"), GRIDS)
def test_golden_bytes(bits: int, sym: bool):
    """The file of a hand-made linear has the very bytes that it had when the loaders were last tried on it."""
    tensors = to_gptq_tensors("model.layers.0.mlp.up_proj", hand_made_weight(bits, sym=sym), torch.arange(32) / 8)
    digest = hashlib.sha256(b"".join(tensors_stream(tensors, {"format": "pt"}))).hexdigest()
    assert digest == GOLDEN[bits, sym]


@pytest.mark.parametrize(
    ("bits", "out_features", "in_features", "allowed"),
    [(3, 48, 64, "2 or 4 or 8"), (2, 32, 72, "4 or 8"), (4, 36, 64, "8"), (8, 33, 64, "none")],
)
def test_shapes_that_do_not_fill_words_are_refused(bits: int, out_features: int, in_features: int, allowed: str):
    """The error names bits and the widths that fit."""
    weight = random_weight(bits=bits, sym=True, out_features=out_features, in_features=in_features, group_size=-1)
    with pytest.raises(InvalidConfigError, match="not a multiple of") as caught:
        to_gptq_tensors("m", weight, None)
    assert caught.value.field == "bits"
    assert caught.value.allowed.startswith(allowed)


def test_a_bias_beyond_float16_is_refused():
    """A bias that float16 cannot hold is an error, never an infinity on disk."""
    with pytest.raises(ArtifactInvalidError, match="float16"):
        to_gptq_tensors("m", random_weight(bits=4, sym=True), torch.full((32,), 1e6))


@pytest.mark.parametrize(
    ("suffix", "replacement", "message"),
    [
        ("scales", torch.ones(3, 32).half(), "zeros has the shape"),
        ("g_idx", torch.zeros(63, dtype=torch.int32), "g_idx has the shape"),
        ("g_idx", torch.full((64,), 4, dtype=torch.int32), "outside 0 to 3"),
        ("qzeros", None, "absent"),
    ],
)
def test_tensors_that_do_not_belong_together_are_refused(suffix: str, replacement: torch.Tensor | None, message: str):
    """Reading names the linear and what is wrong with it."""
    tensors = to_gptq_tensors("m", random_weight(bits=4, sym=True), None)
    if replacement is None:
        del tensors[f"m.{suffix}"]
    else:
        tensors[f"m.{suffix}"] = replacement
    with pytest.raises(ArtifactInvalidError, match=message):
        from_gptq_tensors("m", tensors, bits=4, group_size=16, sym=True, version="gptq")
