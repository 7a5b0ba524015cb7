"""Causal attention of bfloat16 heads on the CPU's dot-product instruction, with nothing kept of scores but a block.

The scores of KEYS keys and PANEL queries lie with the queries in the lanes of vectors, so that a softmax is the same
step for every lane, and its shares are the operands of the next product as they come. Maximum and sum run along from
block to block (the online softmax, https://arxiv.org/abs/1805.02867). Scores stay float32; shares are rounded to
bfloat16, and so are the values' sums at their end.

Legend: B sequences, H query heads, K key heads, N tokens, D width of a head, E width of its values, W = D/2 words.
"""

from __future__ import annotations

import numba
import numpy as np
import torch

from core.kernels.arrays import Floats, Words
from core.kernels.bfloat16 import Bfloats, bits_of, rounded
from core.kernels.float32_tiles import copy_view
from core.kernels.softmax import soften
from core.kernels.tiles import PANEL, ROWS, tile_rows

KEYS = 64
_LOG2_E = 1.4426950408889634
_NOTHING_SEEN = np.float32(-1e30)
# What a panel is worked in: scores, three numbers per query, values seen, the same by query, queries, shares.
Memory = tuple[Floats, Floats, Floats, Floats, Words, Words]


def fits(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> bool:
    """Whether heads of these shapes are what the tiles are made of: whole words, and whole rows of values."""
    (_, heads, tokens, width), (_, key_heads, seen, _) = query.shape, key.shape
    return seen == tokens and heads % key_heads == 0 and width % 2 == 0 and value.shape[-1] % ROWS == 0


def causal_attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float) -> torch.Tensor:
    """Returns softmax(scaling · q kᵀ) v over the keys up to each query, [B, N, H, E]; all bfloat16, see `fits`.

    query [B, H, N, D], key [B, K, N, D] and value [B, K, N, E], H a multiple of K, of any strides. scaling is positive.
    """
    batch, heads, tokens, _ = query.shape
    out = torch.empty(batch, tokens, heads, value.shape[-1], dtype=torch.bfloat16)
    factor = np.float32(scaling * _LOG2_E)
    keys, values = _words(_whole_blocks(key)), _pairs(_whole_blocks(value))
    _attend(_words(query), keys, values, factor, bits_of(out), numba.get_num_threads())
    return out


def _whole_blocks(heads: torch.Tensor) -> torch.Tensor:
    missing = -heads.shape[2] % KEYS
    return torch.nn.functional.pad(heads, (0, 0, 0, missing)) if missing else heads


def _words(heads: torch.Tensor) -> Words:
    """Returns two neighbours of a head's width as one word each, [B, H, N, W]."""
    return heads.contiguous().view(torch.int32).numpy().view(np.uint32)


def _pairs(value: torch.Tensor) -> Words:
    """Returns two neighbouring tokens' values as one word each, [B, K, N/2, E]."""
    batch, heads, tokens, width = value.shape
    zipped = value.reshape(batch, heads, tokens // 2, 2, width).transpose(3, 4).contiguous()
    return zipped.view(torch.int32).squeeze(-1).numpy().view(np.uint32)


@numba.njit(parallel=True, cache=True, nogil=True)
def _attend(query: Words, key: Words, value: Words, factor: np.float32, out: Bfloats, threads: int) -> None:
    batch, heads, tokens, words = query.shape
    width = value.shape[3]
    panels = (tokens + PANEL - 1) // PANEL
    units = batch * heads * panels
    for number in numba.prange(threads):
        thread = int(np.intp(number))
        # Memory to work in is taken once: threads that allocate wait for each other.
        scores = np.empty(KEYS * PANEL, dtype=np.float32)
        sums = np.empty((3, PANEL), dtype=np.float32)
        seen = np.empty(width * PANEL, dtype=np.float32)
        found = np.empty((PANEL, width), dtype=np.float32)
        queries = np.empty(words * PANEL, dtype=np.uint32)
        shares = np.empty(KEYS // 2 * PANEL, dtype=np.uint32)
        memory = (scores, sums, seen, found, queries, shares)
        for unit in range(thread * units // threads, (thread + 1) * units // threads):
            place = unit // (heads * panels), unit // panels % heads, unit % panels * PANEL
            _attend_panel(query, key, value, factor, out, place, memory)


@numba.njit(cache=True, nogil=True)
def _attend_panel(
    query: Words,
    key: Words,
    value: Words,
    factor: np.float32,
    out: Bfloats,
    place: tuple[int, int, int],
    memory: Memory,
) -> None:
    """place: sequence, head and first query."""
    sequence, head, first = place
    heads, words, width = query.shape[1], query.shape[3], value.shape[3]
    scores, sums, seen, found, queries, shares = memory
    highest, total, fade = sums[0], sums[1], sums[2]
    highest[:], total[:], seen[:] = _NOTHING_SEEN, np.float32(0.0), np.float32(0.0)
    rows = query[sequence, head, first : first + PANEL]
    count = rows.shape[0]
    if count < PANEL:
        queries[:] = np.uint32(0)
    copy_view(rows.T, queries.reshape(words, PANEL)[:, :count])
    group = sequence * key.shape[1] + head // (heads // key.shape[1])
    all_keys, all_values, all_out = key.reshape(-1), value.reshape(-1), out.reshape(-1)
    for start in range(0, first + count, KEYS):
        keys_at = (group * key.shape[2] + start) * words
        for row in range(0, KEYS, ROWS):
            tile_rows(all_keys, keys_at + row * words, words, 1, queries, 0, words, scores, row * PANEL, None)
        if start + KEYS > first:
            _hide_future(scores, start - first)
        soften(scores, KEYS, factor, highest, fade, total, shares)
        values_at = (group * value.shape[2] + start // 2) * width
        for row in range(0, width, ROWS):
            tile_rows(all_values, values_at + row, 1, width, shares, 0, KEYS // 2, seen, row * PANEL, fade)
    copy_view(seen.reshape(width, PANEL).T, found)
    for lane in range(count):
        at = ((sequence * out.shape[1] + first + lane) * heads + head) * width
        _put_row(found[lane], total[lane], all_out[at : at + width])


@numba.njit(cache=True, nogil=True)
def _hide_future(scores: Floats, ahead: int) -> None:
    """ahead: how far the first key lies behind the first query."""
    for row in range(KEYS):
        for lane in range(min(max(row + ahead, 0), PANEL)):
            scores[row * PANEL + lane] = -np.inf


@numba.njit(cache=True, nogil=True, error_model="numpy")  # a look at each divisor would keep it out of vectors
def _put_row(sums: Floats, total: np.float32, out: Bfloats) -> None:
    """Divides a query's values by what its shares sum to; contiguous, so that the compiler takes vectors of them."""
    for column in range(out.shape[0]):
        out[column] = rounded(sums[column] / total)
