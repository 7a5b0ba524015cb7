"""Work folders: one per job, gone at once when they are removed."""

from __future__ import annotations

from pathlib import Path

from worker.trash import TRASH_PREFIX, empty_trash
from worker.workfolder import WorkFolder, job_ids


def test_a_folder_is_kept_between_attempts_and_removed_once(tmp_path: Path):
    folder = WorkFolder(tmp_path, "job_1")
    folder.create()
    folder.blocks.mkdir()
    folder.create()
    assert folder.blocks.is_dir()
    assert list(job_ids(tmp_path)) == ["job_1"]
    folder.remove()
    folder.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_removal_that_was_interrupted_is_finished_later(tmp_path: Path):
    """What lies in the trash is no job's folder any more."""
    (tmp_path / f"{TRASH_PREFIX}1" / "blocks").mkdir(parents=True)
    assert list(job_ids(tmp_path)) == []
    empty_trash(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_no_root_means_no_folders(tmp_path: Path):
    assert list(job_ids(tmp_path / "absent")) == []
    empty_trash(tmp_path / "absent")
