"""Adds what was measured after an artifact was written to its cards, and renews the lists of hashes over them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from core.checkpoint.checksums import SUMS_FILE, read_sha256sums, write_sha256sums
from core.checkpoint.durable import replace_file
from core.formats.model_card import CARD_FILE, with_evidence


def add_evidence(artifact_dir: Path, evidence: Mapping[str, str]) -> None:
    """Puts rows, label to value, in front of the table of every card; one whose label is there already is replaced.

    Raises ArtifactInvalidError where a list of hashes is absent.
    """
    # The folders inside come first: the outer list covers their cards and lists.
    for folder in sorted((path.parent for path in artifact_dir.rglob(SUMS_FILE)), key=_depth, reverse=True):
        known = read_sha256sums(folder)
        card = folder / CARD_FILE
        replace_file(card, [with_evidence(card.read_text("utf-8"), evidence).encode()])
        changed = {name for name in known if Path(name).name in {CARD_FILE, SUMS_FILE}}
        write_sha256sums(folder, {name: sha256 for name, sha256 in known.items() if name not in changed})


def _depth(folder: Path) -> int:
    return len(folder.parts)
