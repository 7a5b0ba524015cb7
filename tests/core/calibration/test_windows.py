"""Windows are cut from the text as it is: disjoint, complete, chosen by the seed alone, and counted."""

from __future__ import annotations

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from core.calibration.windows import PIECE_CHARS, consecutive_windows, draw_windows, opening_tokens
from core.configs import CalibrationConfig
from core.errors import CalibrationProblem, CalibrationRefusedError
from tests.core.calibration.tokenizers import byte_level_tokenizer, word_tokenizer

TOKENIZER = byte_level_tokenizer()
BOS_TOKENIZER = byte_level_tokenizer(opens_with_bos=True)

# Each number stands once, so that a window's place in the text can be told from its content.
NUMBERS = " ".join(f"{number:05d}" for number in range(4000))


def numbers_of(window: torch.Tensor) -> list[int]:
    """Returns the whole numbers of a window."""
    return [int(number) for number in re.findall(r"(?<=\s)\d{5}(?=\s)", TOKENIZER.decode(window.tolist()))]


configs = st.builds(
    CalibrationConfig, samples=st.integers(1, 40), seq_len=st.integers(16, 400), seed=st.integers(0, 2**32 - 1)
)


@settings(max_examples=40)
@given(configs)
def test_windows_never_overlap_and_are_pieces_of_the_text(config: CalibrationConfig):
    """No number stands in two windows; inside a window the text runs on without a gap; no window is short."""
    windows = draw_windows([NUMBERS], TOKENIZER, config)
    assert windows.tokens_NT.shape == (config.samples, config.seq_len)
    assert windows.tokens_NT.dtype == torch.int64
    found = [numbers_of(window) for window in windows.tokens_NT]
    for numbers in found:
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)) if numbers else [])
    everything = [number for numbers in found for number in numbers]
    assert len(everything) == len(set(everything))


@settings(max_examples=20)
@given(configs)
def test_the_seed_and_nothing_else_chooses(config: CalibrationConfig):
    """The same seed gives the same windows and digest in every process; the number of documents' pieces does not."""
    first, second = (draw_windows([NUMBERS], TOKENIZER, config) for _ in range(2))
    assert torch.equal(first.tokens_NT, second.tokens_NT)
    assert first.sha256 == second.sha256


def test_the_draw_is_pinned():
    """A changed draw would break the resume of every run under way and the meaning of every recorded digest."""
    windows = draw_windows([NUMBERS], word_tokenizer(4000), CalibrationConfig(samples=4, seq_len=32, seed=7))
    assert windows.tokens_NT[:, 0].tolist() == [576, 2592, 320, 2176]
    assert windows.sha256 == "5e3e8567b6a536c0044acff2d04e0dfa85505b37bb8db605b38724cc42823586"


def test_another_seed_is_another_draw():
    """Ten seeds, ten digests."""
    digests = {
        draw_windows([NUMBERS], TOKENIZER, CalibrationConfig(samples=8, seq_len=64, seed=seed)).sha256
        for seed in range(10)
    }
    assert len(digests) == 10


def test_the_digest_tells_shape_and_order_apart():
    """The same tokens in another shape are another calibration."""
    wide = consecutive_windows(["abcdefgh" * 100], TOKENIZER, 64, 2)
    narrow = consecutive_windows(["abcdefgh" * 100], TOKENIZER, 32, 4)
    assert torch.equal(wide.tokens_NT.flatten(), narrow.tokens_NT.flatten())
    assert wide.sha256 != narrow.sha256


def test_every_window_opens_as_the_tokenizer_opens_a_sequence():
    """BOS stands first in each window, and only there; the window is no longer for it."""
    bos = BOS_TOKENIZER.bos_token_id
    windows = draw_windows([NUMBERS], BOS_TOKENIZER, CalibrationConfig(samples=9, seq_len=50))
    assert windows.tokens_NT.shape == (9, 50)
    assert (windows.tokens_NT[:, 0] == bos).all()
    assert not (windows.tokens_NT[:, 1:] == bos).any()
    assert opening_tokens(BOS_TOKENIZER) == [bos]
    assert opening_tokens(TOKENIZER) == []


def test_too_few_tokens_is_refused_with_both_counts():
    """The message says how many windows would do, and that many do."""
    tokens = len(TOKENIZER(NUMBERS)["input_ids"])
    most = tokens // 100
    with pytest.raises(CalibrationRefusedError) as caught:
        draw_windows([NUMBERS], TOKENIZER, CalibrationConfig(samples=most + 1, seq_len=100))
    assert caught.value.problem == CalibrationProblem.TOO_FEW_TOKENS
    assert caught.value.tokens_available == tokens
    assert caught.value.tokens_needed == (most + 1) * 100
    assert str(most) in caught.value.hint
    windows = draw_windows([NUMBERS], TOKENIZER, CalibrationConfig(samples=most, seq_len=100))
    assert windows.samples == most
    assert windows.tokens_available == tokens


def test_a_text_shorter_than_one_window_is_refused():
    """For perplexity, too."""
    with pytest.raises(CalibrationRefusedError):
        consecutive_windows(["abc"], TOKENIZER, 64)
    with pytest.raises(CalibrationRefusedError):
        draw_windows([], TOKENIZER, CalibrationConfig())


def test_documents_are_packed_with_an_empty_line_between():
    """Nothing is padded, and no document is glued to the next."""
    windows = consecutive_windows(["a" * 30, "b" * 40], byte_level_tokenizer(), 16)
    text = TOKENIZER.decode(windows.tokens_NT.flatten().tolist())
    assert ("a" * 30 + "\n\n" + "b" * 40).startswith(text)
    assert "a\n\nb" in text


@settings(max_examples=30)
@given(st.integers(0, 3 * PIECE_CHARS), st.sampled_from(["word ", "line of text\n", "x"]))
def test_long_documents_lose_nothing_at_the_joints(length: int, unit: str):
    """Tokenizing in pieces keeps every character of the text, with line ends or without."""
    text = "start of it " + (unit * (length // len(unit) + 1))[:length] + " end of it all"
    tokens = consecutive_windows([text], TOKENIZER, 16)
    assert text.startswith(TOKENIZER.decode(tokens.tokens_NT.flatten().tolist()))
    assert tokens.tokens_available >= tokens.tokens_NT.numel() > tokens.tokens_available - 16


def test_consecutive_windows_read_on_from_the_start():
    """In reading order, no seed, at most as many as asked for."""
    windows = consecutive_windows([NUMBERS], TOKENIZER, 64, 5)
    whole = TOKENIZER(NUMBERS)["input_ids"]
    assert windows.tokens_NT.flatten().tolist() == whole[: 5 * 64]
    assert consecutive_windows([NUMBERS], TOKENIZER, 64).samples == len(whole) // 64
