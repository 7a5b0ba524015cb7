"""What a model writes for its own calibration: the same every time, enough for its draw, kept, bounded."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.calibration.texts import read_documents
from core.calibration.windows import draw_windows
from core.configs import CalibrationConfig
from core.errors import CalibrationProblem, CalibrationRefusedError, InsufficientResourcesError
from core.evaluation import self_text
from core.evaluation.loading import load_tokenizer
from core.evaluation.self_text import SelfText, write_self_text
from tests.core.tiny import byte_tokenizer, write_tiny_model

CONFIG = CalibrationConfig(samples=4, seq_len=32)
TEMPLATE = "{% for m in messages %}[{{ m.role }}]{{ m.content }}</s>{% endfor %}"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny llama."""
    return write_tiny_model(tmp_path_factory.mktemp("model") / "llama")


def test_the_text_is_seeded_and_fills_its_draw(model: Path, tmp_path: Path):
    """The same bytes twice, others for another seed; all windows can be drawn from it."""
    first, second, other = (tmp_path / name for name in ("first", "second", "other"))
    assert write_self_text(model, SelfText.for_draw(CONFIG), first)
    assert write_self_text(model, SelfText.for_draw(CONFIG), second)
    write_self_text(model, SelfText.for_draw(CalibrationConfig(samples=4, seq_len=32, seed=1)), other)
    assert first.read_bytes() == second.read_bytes() != other.read_bytes()
    windows = draw_windows(read_documents(first), load_tokenizer(model), CONFIG)
    assert windows.samples == 4
    assert len(set(read_documents(first))) == windows.documents == SelfText.for_draw(CONFIG).rows


def test_what_lies_there_is_not_written_again(model: Path, tmp_path: Path):
    """Unless it is another draw's, or was cut short."""
    out, ticks = tmp_path / "text", []
    write_self_text(model, SelfText.for_draw(CONFIG), out)
    assert not write_self_text(model, SelfText.for_draw(CONFIG), out, advance=lambda *at: ticks.append(at))
    assert ticks == []
    out.write_text("{}")
    assert write_self_text(model, SelfText.for_draw(CONFIG), out, advance=lambda *at: ticks.append(at))
    assert ticks[-1][0] <= ticks[-1][1]


def test_a_chat_model_begins_where_a_user_speaks(tmp_path: Path):
    """Every document opens with what the template writes in front of a user's words."""
    folder = write_tiny_model(tmp_path / "chat")
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    write_self_text(folder, SelfText.for_draw(CONFIG), tmp_path / "text")
    assert all(str(document).startswith("[user]") for document in read_documents(tmp_path / "text"))


def test_it_ends_when_asked_or_late_or_without_room(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Nothing half-written stays."""
    out = tmp_path / "text"
    with pytest.raises(CalibrationRefusedError) as refused:
        write_self_text(model, SelfText.for_draw(CONFIG), out, max_seconds=0.0)
    assert refused.value.problem is CalibrationProblem.TOO_SLOW

    def stop(*_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_self_text(model, SelfText.for_draw(CONFIG), out, advance=stop)
    monkeypatch.setattr(self_text, "generation_bytes", lambda _: 2**60)
    with pytest.raises(InsufficientResourcesError, match="memory"):
        write_self_text(model, SelfText.for_draw(CONFIG), out)
    assert list(tmp_path.iterdir()) == []
