"""Adds what was measured after an artifact was written to its cards, and renews the lists of hashes over them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from core.checkpoint.checksums import SUMS_FILE, read_sha256sums, renew_sha256sums
from core.checkpoint.durable import TEMPORARY_MARK, replace_file
from core.formats.model_card import CARD_FILE, with_evidence

FAULT_POINT: Final = "card_written"
"""Where a test may stop a process: between a card and the list of hashes over it."""


def add_evidence(
    artifact_dir: Path, evidence: Mapping[str, str], *, on_fault: Callable[[str], None] = lambda _: None
) -> None:
    """Puts rows, label to value, in front of the table of every card; one whose label is there already is replaced.

    on_fault: is told of each card that is written. Raises ArtifactInvalidError where a list of hashes is absent.
    """
    for folder in _listed_folders(artifact_dir):
        card = folder / CARD_FILE
        replace_file(card, [with_evidence(card.read_text("utf-8"), evidence).encode()])
        on_fault(FAULT_POINT)
        _list_cards(folder)


def mend_evidence(artifact_dir: Path) -> None:
    """Brings an artifact in order whose process was lost in `add_evidence`: lists its cards again, removes torn files.

    A card is replaced as a whole or not at all. Raises ArtifactInvalidError where a list or a card is absent.
    """
    for torn in artifact_dir.rglob(f"*{TEMPORARY_MARK}*"):
        torn.unlink()
    for folder in _listed_folders(artifact_dir):
        _list_cards(folder)


def _listed_folders(artifact_dir: Path) -> list[Path]:
    """Returns the folders inside first: the outer list covers their cards and lists."""
    return sorted((path.parent for path in artifact_dir.rglob(SUMS_FILE)), key=_depth, reverse=True)


def _list_cards(folder: Path) -> None:
    renew_sha256sums(folder, [name for name in read_sha256sums(folder) if Path(name).name in {CARD_FILE, SUMS_FILE}])


def _depth(folder: Path) -> int:
    return len(folder.parts)
