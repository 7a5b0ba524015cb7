"""Whether a model still speaks: told at a glance, judged beside the float model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from core.errors import ArtifactDegenerateError
from core.evaluation.sample import Answer, Samples, degenerate, refuse_degenerate, sample_both
from tests.core.evaluation.models import quantize_by_hand, save_model

PROSE = (
    "The sky is blue because the air scatters short waves of light more than long ones. "
    "At sunset the light goes a longer way, and what is left of it is red."
)
LIST = "1. Red\n2. Green\n3. Blue\n4. Yellow\n5. White\n6. Black\n7. Brown\n8. Pink"
CODE = "def add(a, b):\n    return a + b\n\nprint(add(1, 2))\n"


def samples(before: str, after: str) -> Samples:
    """Returns two answers."""
    return Samples(
        prompt="Why?",
        before=Answer(text=before, tokens=8, seconds=2.0),
        after=Answer(text=after, tokens=8, seconds=1.0),
        packed=None,
    )


@pytest.mark.parametrize("text", [PROSE, LIST, CODE, "Yes.", "Das weiß ich nicht genau, ehrlich gesagt."])
def test_speech_passes(text: str):
    """Prose, lists, code and short answers."""
    assert degenerate(text) is None


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "empty"),
        (" \n ", "empty"),
        ("the the the the " * 8, "over and over"),
        ("The sky is blue. " * 9, "over and over"),
        ("\ufffd\ufffd a \ufffd\ufffd\ufffd", "cannot be read"),
    ],
)
def test_what_nobody_would_call_speech_does_not(text: str, fault: str):
    """Nothing, repetition, unreadable signs: named in words."""
    assert fault in str(degenerate(text))


def test_only_what_quantization_broke_is_refused():
    """With both answers as evidence; a model that did not speak before is not judged."""
    with pytest.raises(ArtifactDegenerateError) as caught:
        refuse_degenerate(samples(PROSE, "sky sky sky " * 9))
    assert PROSE in str(caught.value)
    assert "sky sky sky" in caught.value.quantized_text
    assert "more bits" in caught.value.hint
    refuse_degenerate(samples(PROSE, LIST))
    refuse_degenerate(samples("sky " * 40, "sky " * 40))


def test_both_models_answer_the_same_prompt(tmp_path: Path):
    """The artifact is read as loaders would; the rate of decoding is that of the tokens that came."""
    save_model(tmp_path / "float")
    quantize_by_hand(tmp_path / "float", tmp_path / "q", bits=8, sym=True)
    found = sample_both(tmp_path / "float", tmp_path / "q", torch.float32)
    for answer in (found.before, found.after):
        assert answer.tokens > 0
        assert answer.tokens_per_second == answer.tokens / answer.seconds
