"""Perplexity is exp of the mean negative log-likelihood of each next token, and nothing of its making shows in it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from core.evaluation.loading import load_model
from core.evaluation.perplexity import perplexity
from core.events import Event, Stage, StageAdvanced
from tests.core.evaluation.models import SHARED, save_model

VOCABULARY = int(SHARED["vocab_size"])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedModel:
    """A tiny random Llama."""
    folder = tmp_path_factory.mktemp("model")
    save_model(folder)
    return load_model(folder)


def tokens(windows: int, width: int) -> torch.Tensor:
    return torch.randint(0, VOCABULARY, (windows, width), generator=torch.Generator().manual_seed(2))


def test_equals_a_computation_by_hand(model: PreTrainedModel):
    """Token by token, with softmax written out in double precision."""
    tokens_NT = tokens(3, 9)
    likelihoods = []
    for window in tokens_NT.tolist():
        for position in range(1, len(window)):
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([window[:position]])).logits[0, -1].double().tolist()
            highest = max(logits)
            total = sum(math.exp(logit - highest) for logit in logits)
            likelihoods.append(math.exp(logits[window[position]] - highest) / total)
    by_hand = math.exp(-sum(map(math.log, likelihoods)) / len(likelihoods))
    assert perplexity(model, tokens_NT) == pytest.approx(by_hand, rel=1e-4)


def test_a_model_that_knows_nothing_has_the_vocabulary_as_its_perplexity(tmp_path: Path):
    """With an embedding of zeros every token is equally likely."""
    save_model(tmp_path)
    blank = load_model(tmp_path)
    with torch.no_grad():
        blank.get_input_embeddings().weight.zero_()
    assert perplexity(blank, tokens(2, 20)) == pytest.approx(VOCABULARY, rel=1e-5)


def test_windows_are_judged_on_their_own(model: PreTrainedModel):
    """The logarithm over all windows is the mean of the windows' own; their order does not count."""
    tokens_NT = tokens(4, 30)
    alone = [math.log(perplexity(model, window[None])) for window in tokens_NT]
    assert math.log(perplexity(model, tokens_NT)) == pytest.approx(sum(alone) / 4, rel=1e-6)
    assert perplexity(model, tokens_NT.flip(0)) == pytest.approx(perplexity(model, tokens_NT), rel=1e-9)


@pytest.mark.parametrize("width", [2, 100, 128])
def test_the_size_of_the_steps_does_not_show(model: PreTrainedModel, width: int, monkeypatch: pytest.MonkeyPatch):
    """Logits are worked off in parts of some rows; any part gives the same value."""
    whole = perplexity(model, tokens(2, width))
    monkeypatch.setattr("core.evaluation.perplexity.LOGIT_ROWS", 7)
    assert perplexity(model, tokens(2, width)) == pytest.approx(whole, rel=1e-6)


def test_each_window_is_an_event(model: PreTrainedModel):
    """A caller sees progress to the last window."""
    events: list[Event] = []
    perplexity(model, tokens(3, 4), events.append)
    assert events == [StageAdvanced(stage=Stage.EVALUATING, done=done, total=3) for done in (1, 2, 3)]


def test_a_broken_model_is_not_finite(tmp_path: Path):
    """NaN in the weights is NaN in the answer, not an exception and not a number that looks fine."""
    save_model(tmp_path)
    broken = load_model(tmp_path)
    with torch.no_grad():
        broken.get_input_embeddings().weight.fill_(float("nan"))
    assert math.isnan(perplexity(broken, tokens(1, 4)))


@pytest.mark.parametrize("shape", [(0, 8), (2, 1)])
def test_nothing_to_judge_is_an_error(model: PreTrainedModel, shape: tuple[int, int]):
    """One token has no next token."""
    with pytest.raises(ValueError, match="at least 2 tokens"):
        perplexity(model, torch.zeros(shape, dtype=torch.int64))
