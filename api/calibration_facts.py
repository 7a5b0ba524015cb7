"""What is known of stored calibration texts: looked over once per process, since their bytes never change."""

from __future__ import annotations

import tempfile
import threading
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING

from core.calibration.lint import too_few_tokens
from core.calibration.texts import TextFacts, describe
from core.configs import Packing

if TYPE_CHECKING:
    from core.configs import CalibrationConfig
    from store.artifacts import ArtifactStore
    from store.jobs import CalibrationSet

KEPT = 256


class CalibrationFacts:
    """Looks a text over at the first question and remembers the answer."""

    def __init__(self, artifacts: ArtifactStore, folder: Path) -> None:
        """folder: where a text lies while it is read."""
        self._artifacts = artifacts
        self._folder = folder
        self._known: OrderedDict[str, TextFacts] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, stored: CalibrationSet) -> TextFacts:
        """Returns what a look over the text finds; raises StorageUnavailableError."""
        with self._lock:
            known = self._known.get(stored.sha256)
        return self._look(stored.sha256) if known is None else known

    def _look(self, sha256: str) -> TextFacts:
        self._folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="calibration-", dir=self._folder) as scratch:
            path = Path(scratch) / "text"
            self._artifacts.fetch_to(sha256, path)
            facts = describe(path)
        self.remember(facts)
        return facts

    def remember(self, facts: TextFacts) -> None:
        """Keeps the answer, the oldest one goes."""
        with self._lock:
            self._known[facts.sha256] = facts
            while len(self._known) > KEPT:
                self._known.popitem(last=False)


def draw_warnings(facts: TextFacts, config: CalibrationConfig) -> list[str]:
    """Returns what a job that draws from the text should know before it starts.

    Token counts are estimated: the API has no tokenizer. The worker counts exactly, and refuses what is too little.
    """
    found = list(facts.warnings)
    few = too_few_tokens(facts.estimated_tokens, config.tokens)
    found += [few] if few else []
    if config.packing is Packing.DOCUMENT and facts.documents < config.samples:
        found.append(f"The calibration text has {facts.documents:,} documents, for {config.samples:,} windows.")
    return found
