"""Codes to words and back."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from core.formats.packing import pack, unpack
from core.preflight.targets import codes_per_word
from tests.reference.unpacker import unpack_line

WIDTHS = (2, 3, 4, 8)


def words_of(codes: list[int], bits: int) -> list[int]:
    """Returns the packed words as unsigned numbers."""
    return [word & 0xFFFFFFFF for word in pack(torch.tensor(codes, dtype=torch.uint8), bits).tolist()]


@settings(max_examples=60)
@given(bits=st.sampled_from(WIDTHS), lines=st.integers(1, 5), units=st.integers(1, 5), seed=st.integers(0, 2**31))
def test_unpack_undoes_pack(bits: int, lines: int, units: int, seed: int):
    """unpack(pack(x)) == x for every width and shape that fills words."""
    generator = torch.Generator().manual_seed(seed)
    shape = (lines, units * codes_per_word(bits))
    codes = torch.randint(0, 2**bits, shape, generator=generator, dtype=torch.uint8)
    packed = pack(codes, bits)
    assert packed.shape == (lines, shape[1] * bits // 32)
    assert packed.dtype == torch.int32
    assert torch.equal(unpack(packed, bits), codes)


@settings(max_examples=40)
@given(bits=st.sampled_from(WIDTHS), units=st.integers(1, 4), data=st.data())
def test_words_read_back_bit_by_bit(bits: int, units: int, data: st.DataObject):
    """The independent reader, which looks at one bit at a time, finds the codes that were packed."""
    count = units * codes_per_word(bits)
    codes = data.draw(st.lists(st.integers(0, 2**bits - 1), min_size=count, max_size=count))
    packed = pack(torch.tensor(codes, dtype=torch.uint8), bits)
    assert unpack_line(packed.tolist(), bits) == codes


@pytest.mark.parametrize(
    ("bits", "codes", "words"),
    [
        (2, [0, 1, 2, 3] * 4, [0xE4E4E4E4]),
        (4, list(range(8)), [0x76543210]),
        (4, [8] * 8, [0x88888888]),
        (8, [0x78, 0x56, 0x34, 0x12], [0x12345678]),
        (3, [7] * 10 + [0] * 22, [0x3FFFFFFF, 0, 0]),
    ],
)
def test_golden_words(bits: int, codes: list[int], words: list[int]):
    """Words written out by hand from the format's definition."""
    assert words_of(codes, bits) == words


@pytest.mark.parametrize(
    ("position", "words"),
    [
        (9, [7 << 27, 0, 0]),
        (10, [0xC0000000, 0x00000001, 0]),
        (11, [0, 7 << 1, 0]),
        (21, [0, 0x80000000, 0x00000003]),
        (22, [0, 0, 7 << 2]),
        (31, [0, 0, 0xE0000000]),
    ],
)
def test_three_bit_codes_straddle_words(position: int, words: list[int]):
    """Code 10 straddles words 0 and 1 at bit 30, code 21 straddles words 1 and 2 at bit 31; their neighbours do not."""
    codes = [0] * 32
    codes[position] = 7
    assert words_of(codes, 3) == words


@pytest.mark.parametrize("bits", WIDTHS)
def test_views_pack_like_their_copies(bits: int):
    """Transposed, single-row and unaligned views give the words of a contiguous copy."""
    unit = codes_per_word(bits)
    base = torch.randint(0, 2**bits, (2 * unit, 2 * unit + 3), dtype=torch.uint8)
    for view in (base[:, :unit].T, base[:1, 3:], base[1, 3:], base[:, 3 : 3 + unit], base[:, :1].T):
        assert torch.equal(pack(view, bits), pack(view.clone(memory_format=torch.contiguous_format), bits))
        assert torch.equal(unpack(pack(view, bits), bits), view)
