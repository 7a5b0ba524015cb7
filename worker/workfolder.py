"""Where a running job keeps its files: one folder per job, removed once the job is over.

The folder outlives its attempt, so that the next one goes on from the last finished block.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from worker.trash import TRASH_PREFIX, discard


@dataclass(frozen=True, slots=True)
class WorkFolder:
    """The files of one job under the work root."""

    root: Path
    job_id: str

    @property
    def path(self) -> Path:
        """Returns the folder itself."""
        return self.root / self.job_id

    @property
    def blocks(self) -> Path:
        """Returns where finished blocks and the manifest lie."""
        return self.path / "blocks"

    @property
    def artifact(self) -> Path:
        """Returns where the finished artifact is built."""
        return self.path / "artifact"

    @property
    def calibration(self) -> Path:
        """Returns the calibration text's place."""
        return self.path / "calibration"

    def create(self) -> None:
        """Makes the folder; one that is there already is taken over."""
        self.path.mkdir(parents=True, exist_ok=True)

    def remove(self) -> None:
        """Removes the folder. It is gone at once under its name, so that a half removed one is never taken over."""
        discard(self.path)


def job_ids(root: Path) -> Iterator[str]:
    """Yields the ids of the jobs that have a folder."""
    if root.is_dir():
        for entry in root.iterdir():
            if entry.is_dir() and not entry.name.startswith(TRASH_PREFIX):
                yield entry.name
