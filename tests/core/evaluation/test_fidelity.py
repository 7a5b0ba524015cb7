"""How near two models are: against the definition on whole models, and with the memory of one block."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from core.evaluation.fidelity import compare_models
from core.evaluation.loading import load_model
from core.evaluation.perplexity import perplexity
from tests.core.evaluation.models import FAMILIES, quantize_by_hand, save_model

TOKENS_NT = torch.randint(2, 320, (3, 40), generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("family", FAMILIES)
def test_it_is_what_whole_models_give(tmp_path: Path, family: str):
    """Perplexity, divergence and agreement follow from both models' logits, for every family."""
    save_model(tmp_path / "float", family)
    quantize_by_hand(tmp_path / "float", tmp_path / "q", bits=4, sym=True)
    (found,) = compare_models(tmp_path / "float", [tmp_path / "q"], TOKENS_NT)
    before, after = load_model(tmp_path / "float"), load_model(tmp_path / "q")
    with torch.inference_mode():
        p = before(TOKENS_NT).logits[:, :-1].double().log_softmax(-1)
        q = after(TOKENS_NT).logits[:, :-1].double().log_softmax(-1)
    assert found.tokens == 3 * 39
    assert found.perplexity_float == pytest.approx(perplexity(before, TOKENS_NT), rel=1e-5)
    assert found.perplexity_quantized == pytest.approx(perplexity(after, TOKENS_NT), rel=1e-5)
    assert found.kl_divergence == pytest.approx(float((p.exp() * (p - q)).sum(-1).mean()), rel=1e-4)
    assert found.top1_agreement == pytest.approx(float((p.argmax(-1) == q.argmax(-1)).double().mean()))
    assert found.perplexity_ratio == found.perplexity_quantized / found.perplexity_float


def test_a_model_is_no_distance_from_itself(tmp_path: Path):
    """No divergence, every token agreed on, and every step is told."""
    save_model(tmp_path)
    steps: list[tuple[int, int]] = []
    found, again = compare_models(tmp_path, [tmp_path, tmp_path], TOKENS_NT, lambda *step: steps.append(step))
    assert found == again
    assert (found.top1_agreement, found.perplexity_ratio) == (1.0, 1.0)
    assert found.kl_divergence == pytest.approx(0, abs=1e-7)
    assert steps == [(step, 2 + 2 * (2 + 3)) for step in range(1, 13)]


def test_broken_weights_give_a_figure_that_is_none(tmp_path: Path):
    """Nothing that is not finite is hidden behind a mean."""
    save_model(tmp_path / "float")
    model = save_model(tmp_path / "nan")
    model.model.norm.weight.data.fill_(math.nan)
    model.save_pretrained(tmp_path / "nan")
    (found,) = compare_models(tmp_path / "float", [tmp_path / "nan"], TOKENS_NT)
    assert math.isfinite(found.perplexity_float)
    assert math.isnan(found.perplexity_quantized)
    assert math.isnan(found.kl_divergence)


@pytest.mark.parametrize("shape", [(0, 8), (2, 1)])
def test_there_must_be_something_to_judge(tmp_path: Path, shape: tuple[int, int]):
    """No window, or none with a token behind the first."""
    save_model(tmp_path)
    with pytest.raises(ValueError, match="at least 2 tokens"):
        compare_models(tmp_path, [tmp_path], torch.zeros(shape, dtype=torch.int64))
