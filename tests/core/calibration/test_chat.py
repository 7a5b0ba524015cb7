"""Conversations become what the model was trained to see, each window with one beginning-of-sequence token at most."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from core.calibration.documents import Conversation, Turn
from core.calibration.texts import TextFormat, describe, read_documents
from core.calibration.windows import draw_windows
from core.configs import CalibrationConfig, Packing
from core.errors import CalibrationProblem, CalibrationRefusedError
from tests.core.calibration.tokenizers import byte_level_tokenizer

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{% if m.role not in ('user', 'assistant') %}"
    "{{ raise_exception('roles must be user or assistant') }}{% endif %}[{{ m.role }}]{{ m.content }}\n{% endfor %}"
)
TALK = [Conversation((Turn("user", f"Question {n}?"), Turn("assistant", f"Answer {n}." * 8))) for n in range(40)]


@pytest.mark.parametrize("packing", list(Packing))
@pytest.mark.parametrize("opens", [True, False])
def test_a_window_never_has_two_opening_tokens(packing: Packing, *, opens: bool):
    """A template that writes the token itself gives none beside the tokenizer's; where only it does, it is kept."""
    tokenizer = byte_level_tokenizer(opens_with_bos=opens)
    tokenizer.chat_template = TEMPLATE
    windows = draw_windows(TALK, tokenizer, CalibrationConfig(samples=8, seq_len=48, packing=packing))
    assert windows.documents == 40
    for tokens in windows.tokens_NT.tolist():
        pairs = itertools.pairwise(tokens)
        assert (tokenizer.bos_token_id, tokenizer.bos_token_id) not in pairs
        if opens:
            assert tokens[0] == tokenizer.bos_token_id
            assert tokens.count(tokenizer.bos_token_id) == 1


def test_what_the_template_writes_is_in_the_windows():
    """Roles are marked as the template marks them, and conversations follow each other without a gap."""
    tokenizer = byte_level_tokenizer(opens_with_bos=True)
    tokenizer.chat_template = TEMPLATE
    windows = draw_windows(TALK[:3], tokenizer, CalibrationConfig(samples=1, seq_len=250))
    text = tokenizer.decode(windows.tokens_NT[0].tolist())
    assert "[assistant]Answer" in text
    assert "\n\n" not in text


def test_a_tokenizer_without_a_template_refuses_conversations():
    """With what to do about it; a template that does not take a role says so too."""
    tokenizer = byte_level_tokenizer()
    with pytest.raises(CalibrationRefusedError) as refused:
        draw_windows(TALK, tokenizer, CalibrationConfig(samples=1, seq_len=32))
    assert refused.value.problem is CalibrationProblem.NO_CHAT_TEMPLATE
    tokenizer.chat_template = TEMPLATE
    with pytest.raises(CalibrationRefusedError, match=r"Conversation 1 .*roles must be") as refused:
        draw_windows([Conversation((Turn("critic", "x"),))], tokenizer, CalibrationConfig(samples=1, seq_len=32))
    assert refused.value.problem is CalibrationProblem.MALFORMED


def test_a_file_of_messages_is_read(tmp_path: Path):
    """JSON Lines with `messages`, also beside `text`; what is neither is refused with its line."""
    path = tmp_path / "talk.jsonl"
    path.write_text(json.dumps({"messages": TALK[0].to_messages()}) + '\n{"text": "plain"}\n')
    assert list(read_documents(path)) == [TALK[0], "plain"]
    facts = describe(path)
    assert (facts.format, facts.documents, facts.conversations) == (TextFormat.JSONL, 2, 1)
    for wrong in ("[]", '[{"role": "user"}]', '[{"role": 1, "content": "x"}]', '"hello"'):
        path.write_text(f'{{"messages": {wrong}}}\n')
        with pytest.raises(CalibrationRefusedError, match="Line 1"):
            describe(path)


def test_a_window_per_document_stays_in_its_document():
    """No window holds words of two documents; short documents are left out; too few long ones are refused."""
    tokenizer = byte_level_tokenizer()
    documents = [f"{letter}" * 100 for letter in "abcdefgh"] + ["short"]
    config = CalibrationConfig(samples=6, seq_len=32, packing=Packing.DOCUMENT)
    windows = draw_windows(documents, tokenizer, config)
    contents = [set(tokenizer.decode(tokens)) for tokens in windows.tokens_NT.tolist()]
    assert all(len(letters) == 1 for letters in contents)
    assert len({letter for letters in contents for letter in letters}) == 6
    assert draw_windows(documents, tokenizer, config).sha256 == windows.sha256
    with pytest.raises(CalibrationRefusedError, match="8 of the calibration text's 9 documents") as refused:
        draw_windows(documents, tokenizer, CalibrationConfig(samples=9, seq_len=32, packing=Packing.DOCUMENT))
    assert refused.value.problem is CalibrationProblem.TOO_FEW_TOKENS
