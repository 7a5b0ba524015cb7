"""The offline text is enough, the same every time, and its evaluation part is no part of its calibration part."""

from __future__ import annotations

import subprocess
import sys

from core.calibration.builtin import SHARED_PARAGRAPH_CHARS, builtin_text

DEFAULT_TOKENS = 32 * 512
CHARS_PER_TOKEN = 4.5  # English and code; a coarse tokenizer makes fewer tokens


def paragraphs(documents: list[str]) -> set[str]:
    levelled = (" ".join(part.split()) for document in documents for part in document.split("\n\n"))
    return {paragraph for paragraph in levelled if len(paragraph) >= SHARED_PARAGRAPH_CHARS}


def test_no_paragraph_stands_in_both_splits():
    """Topics quote one another, yet evaluation text was never calibration text."""
    assert not paragraphs(builtin_text("calibration")) & paragraphs(builtin_text("evaluation"))


def test_there_is_enough_of_both():
    """The default calibration is covered with a margin of two, and a dozen windows are held out."""
    assert sum(map(len, builtin_text("calibration"))) > 2 * DEFAULT_TOKENS * CHARS_PER_TOKEN
    assert sum(map(len, builtin_text("evaluation"))) > 12 * 512 * CHARS_PER_TOKEN


def test_no_document_only_repeats_others():
    """A topic whose every paragraph stands in longer ones is left out."""
    documents = builtin_text("calibration")
    for document in documents:
        others = paragraphs([other for other in documents if len(other) > len(document)])
        own = paragraphs([document])
        assert not own or not own <= others


def test_the_text_is_the_same_in_every_process():
    """Nothing of it hangs on hash seeds or on the order of a set."""
    program = (
        "import hashlib\nfrom core.calibration.builtin import builtin_text\n"
        "for split in ('calibration', 'evaluation'):\n"
        "    print(hashlib.sha256('|'.join(builtin_text(split)).encode()).hexdigest())\n"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": seed}
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(outputs) == 1
