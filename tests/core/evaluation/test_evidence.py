"""Rows that come to a card after the artifact was written; the hashes over it stay right."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.checkpoint.checksums import verify_sha256sums, write_sha256sums
from core.checkpoint.durable import TEMPORARY_MARK
from core.errors import ArtifactInvalidError
from core.evaluation.evidence import add_evidence, mend_evidence

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


class LostError(Exception):
    """Stands for the end of a process."""


@pytest.mark.parametrize("card", [1, 2])
def test_an_artifact_whose_process_was_lost_at_a_card_is_mended(tmp_path: Path, card: int):
    """At the inner card or the outer one, with a file that was not finished beside it; saying it again ends it."""
    artifact, undisturbed = tmp_path / "artifact", tmp_path / "undisturbed"
    write_artifact(artifact)
    passed: list[str] = []

    def lose(point: str) -> None:
        passed.append(point)
        if len(passed) == card:
            raise LostError

    with pytest.raises(LostError):
        add_evidence(artifact, {"perplexity": "12.1"}, on_fault=lose)
    (artifact / f"README.md{TEMPORARY_MARK}1").write_text("half a ca")
    with pytest.raises(ArtifactInvalidError):
        verify_sha256sums(artifact)
    mend_evidence(artifact)
    verify_sha256sums(artifact / INSIDE)
    verify_sha256sums(artifact)
    add_evidence(artifact, {"perplexity": "12.1"})
    write_artifact(undisturbed)
    add_evidence(undisturbed, {"perplexity": "12.1"})
    assert verify_sha256sums(artifact) == verify_sha256sums(undisturbed)


def test_mending_hides_no_other_damage(tmp_path: Path):
    """Weights that changed, a file that came and a card that is gone stay what they are."""
    write_artifact(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"changed")
    mend_evidence(tmp_path)
    with pytest.raises(ArtifactInvalidError, match=r"model\.safetensors"):
        verify_sha256sums(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "stray.txt").write_text("stray")
    mend_evidence(tmp_path)
    with pytest.raises(ArtifactInvalidError, match=r"stray\.txt"):
        verify_sha256sums(tmp_path)
    (tmp_path / "README.md").unlink()
    with pytest.raises(ArtifactInvalidError, match=r"README\.md"):
        mend_evidence(tmp_path)
