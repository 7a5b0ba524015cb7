"""A sentence is what the model finds most likely, the same every time, and ends where a sentence ends."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from core.evaluation.generate import FIRST_SENTENCE, generate_sentence
from core.evaluation.loading import load_model, load_tokenizer
from tests.core.evaluation.models import save_model

CHAT_TEMPLATE = "{% for m in messages %}[{{ m.content }}]{% endfor %}>"


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A tiny random Llama with its tokenizer."""
    folder: Path = tmp_path_factory.mktemp("model")
    save_model(folder)
    return load_model(folder), load_tokenizer(folder)


def greedy_by_hand(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, ids: list[int], count: int) -> str:
    prompt = len(ids)
    for _ in range(count):
        with torch.no_grad():
            ids = [*ids, int(model(torch.tensor([ids])).logits[0, -1].argmax())]
        if ids[-1] == model.generation_config.eos_token_id:
            break
    return tokenizer.decode(ids[prompt:], skip_special_tokens=True)


@pytest.mark.parametrize("template", [None, CHAT_TEMPLATE])
def test_the_likeliest_next_token_each_time(
    loaded: tuple[PreTrainedModel, PreTrainedTokenizerBase], template: str | None
):
    """As a loop over argmax, on the bare prompt and through a chat template."""
    model, tokenizer = loaded
    tokenizer.chat_template = template
    prompt = tokenizer("[the fox]>", add_special_tokens=False) if template else tokenizer("the fox")
    answer = generate_sentence(model, tokenizer, "the fox", max_new_tokens=8)
    by_hand = greedy_by_hand(model, tokenizer, prompt["input_ids"], 8)
    sentence = FIRST_SENTENCE.match(by_hand)
    assert answer == (sentence.group(1) if sentence else by_hand.strip())
    assert generate_sentence(model, tokenizer, "the fox", max_new_tokens=8) == answer


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        ("The capital is Paris. It is old.", "The capital is Paris."),
        ("  Pi is 3.14 or so! And", "Pi is 3.14 or so!"),
        ("Really?", "Really?"),
        ("One\nline. two", "One\nline."),
    ],
)
def test_where_a_sentence_ends(answer: str, sentence: str):
    """At a full stop, exclamation or question mark that is followed by a space or by nothing."""
    found = FIRST_SENTENCE.match(answer)
    assert found is not None
    assert found.group(1) == sentence


def test_no_sentence_in_time():
    """A text without an end has no first sentence; all of it is given."""
    assert FIRST_SENTENCE.match("and so on and on") is None
