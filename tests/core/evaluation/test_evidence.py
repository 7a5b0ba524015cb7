"""Rows that come to a card after the artifact was written; the hashes over it stay right."""

from __future__ import annotations

from pathlib import Path

from core.checkpoint.checksums import verify_sha256sums, write_sha256sums
from core.evaluation.evidence import add_evidence

CARD = "# Name\n\n## Measured\n\n| | |\n|---|---|\n| bits per weight | 4.25 |\n| seed | 0 |\n\nPer linear: see there.\n"
INSIDE = "compressed-tensors"


def write_artifact(folder: Path) -> None:
    """Writes an artifact with a second format in it, each with a card and a list of hashes."""
    (folder / INSIDE).mkdir(parents=True)
    for place in (folder / INSIDE, folder):
        (place / "README.md").write_text(CARD)
        (place / "model.safetensors").write_bytes(b"weights")
        write_sha256sums(place)


def test_rows_come_first_and_hashes_are_renewed(tmp_path: Path):
    """In every card; what was said before stays."""
    write_artifact(tmp_path)
    add_evidence(tmp_path, {"perplexity": "12.1", "asked": "a | b\nc"})
    for place in (tmp_path, tmp_path / INSIDE):
        text = (place / "README.md").read_text()
        assert "|---|---|\n| perplexity | 12.1 |\n| asked | " in text
        assert "| bits per weight | 4.25 |\n| seed | 0 |\n\nPer linear: see there.\n" in text
        assert len([line for line in text.splitlines() if line.startswith("|")]) == 6
        verify_sha256sums(place)


def test_saying_it_again_changes_nothing(tmp_path: Path):
    """A second measurement replaces the rows of the first: an attempt may come back to this."""
    write_artifact(tmp_path)
    add_evidence(tmp_path, {"perplexity": "12.1"})
    once = (tmp_path / "README.md").read_text()
    add_evidence(tmp_path, {"perplexity": "12.1"})
    assert (tmp_path / "README.md").read_text() == once
    add_evidence(tmp_path, {"perplexity": "13.0"})
    assert (tmp_path / "README.md").read_text() == once.replace("12.1", "13.0")
