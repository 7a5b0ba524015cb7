"""The look over a text finds what spoils a calibration, and has nothing to say of a good one."""

from __future__ import annotations

import pytest

from core.calibration.builtin import builtin_text
from core.calibration.documents import Conversation, Turn
from core.calibration.lint import language_of, lint, too_few_tokens

ENGLISH = "The mill is that of the river number {n}, and it was built for the town with the bridge."
GERMAN = "Die Mühle am Fluss Nummer {n} ist nicht die der Stadt, und das Rad dreht sich mit dem Wasser."


def lines(pattern: str, count: int) -> str:
    return "\n".join(pattern.format(n=number) for number in range(count))


def test_a_varied_text_in_two_languages_passes():
    """Counted, estimated, nothing to say."""
    found = lint([lines(ENGLISH, 30), lines(GERMAN, 30)])
    assert found.warnings == ()
    assert (found.documents, found.conversations) == (2, 0)
    assert found.characters == len(lines(ENGLISH, 30)) + len(lines(GERMAN, 30))
    assert found.estimated_tokens == round(found.characters / 4)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (lines(ENGLISH, 40), "English only"),
        (lines(GERMAN, 40), "German only"),
        ("\n".join(f"Жернова {number} мелют пшеницу, мельник не спит." for number in range(40)), "Cyrillic only"),
        (("A line that is long enough to count as one.\n" * 40), "repeat"),
        ("word " * 100, "single line"),
        ("\n".join("word " * 500 for _ in range(3)), "longer than"),
        ("\x01\x02text\x03" * 100, "control characters"),
    ],
)
def test_what_spoils_a_calibration_is_named(text: str, word: str):
    """One sentence each."""
    assert any(word in warning for warning in lint([text]).warnings)


def test_ideographs_take_a_token_each():
    """The estimate knows that four characters to a token holds for alphabets only."""
    assert lint(["水车" * 100]).estimated_tokens == 200


def test_a_conversation_counts_by_what_is_said():
    """Its turns are text like any other."""
    found = lint([Conversation((Turn("user", "How does a mill turn?"), Turn("assistant", "By water.")))])
    assert (found.documents, found.conversations) == (1, 1)
    assert found.characters == len("How does a mill turn?\nBy water.")


def test_too_few_tokens_is_said_as_an_estimate():
    """Only where the draw needs more than there seems to be."""
    found = lint([lines(ENGLISH, 30)])
    assert too_few_tokens(found.estimated_tokens, found.estimated_tokens) is None
    assert "about" in str(too_few_tokens(found.estimated_tokens, found.estimated_tokens + 1))
    assert "estimated" in str(too_few_tokens(found.estimated_tokens, 10**6))


@pytest.mark.parametrize(
    ("line", "language"),
    [
        ("the mill of the town", "English"),
        ("der Müller und die Mühle", "German"),
        ("水车在河边转动", "Chinese"),
        ("물레방아는 강가에서 돌아간다", "Korean"),
        ("for i in range(10): print(i)", None),
        ("0123456789", None),
    ],
)
def test_languages_are_told_apart(line: str, language: str | None):
    """By script or by common words; code and numbers are no language."""
    assert language_of(line) == language


def test_the_builtin_text_is_large_enough():
    """The default draw of 16,384 tokens is far below it."""
    assert too_few_tokens(lint(builtin_text("calibration")).estimated_tokens, 32 * 512) is None
