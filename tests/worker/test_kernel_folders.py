"""Kernel folders of other versions: removed when a worker starts, unless another process uses them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from worker import kernels
from worker.kernels import UNLOCKED_SECONDS, hold_kernels, kernel_folder

OTHER, OLD = "0123456789ab", "ba9876543210"
HOLD = """
import sys
from pathlib import Path
from worker import kernels
kernels._version = lambda: sys.argv[2]
lock = kernels.hold_kernels(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def fill(cache_dir: Path, version: str, *, age_seconds: float = 0.0) -> Path:
    """Makes a version's folder as Numba does, with a folder inside, of an age."""
    inside = cache_dir / "numba" / version / "kernels_1"
    inside.mkdir(parents=True)
    (inside / "solve.nbi").write_text("index")
    then = time.time() - age_seconds
    for path in (inside / "solve.nbi", inside, inside.parent):
        os.utime(path, (then, then))
    return inside.parent


def test_a_folder_goes_once_nobody_uses_it(tmp_path: Path) -> None:
    """As long as another process lives it stays, however that process ends; the own folder always stays."""
    other, own = fill(tmp_path, OTHER), kernel_folder(tmp_path)
    fill(tmp_path, own.name)
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path), OTHER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=dict(os.environ),
        cwd=Path(__file__).parents[2],
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        with hold_kernels(tmp_path):
            assert (other / "kernels_1" / "solve.nbi").exists()
        process.kill()
    assert own.is_dir()  # the other version's start let it be: nobody held it, and it is young
    with hold_kernels(tmp_path):
        assert not other.exists()
        assert own.is_dir()
        assert not list((tmp_path / "numba").glob(".trash-*"))


def test_two_workers_of_a_version_share_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes when the second one has ended, too."""
    own = kernel_folder(tmp_path)
    fill(tmp_path, own.name)
    first, second = hold_kernels(tmp_path), hold_kernels(tmp_path)
    monkeypatch.setattr(kernels, "_version", lambda: OTHER)
    first.close()
    hold_kernels(tmp_path).close()
    assert own.is_dir()
    second.close()
    hold_kernels(tmp_path).close()
    assert not own.exists()


def test_a_folder_without_a_lock_goes_with_its_age(tmp_path: Path) -> None:
    """The first versions made none; what is no folder of kernels is nobody's to remove."""
    young, old = fill(tmp_path, OTHER), fill(tmp_path, OLD, age_seconds=UNLOCKED_SECONDS + 60)
    strange = fill(tmp_path, "not-a-version", age_seconds=UNLOCKED_SECONDS + 60)
    hold_kernels(tmp_path).close()
    assert young.is_dir()
    assert not old.exists()
    assert strange.is_dir()


def test_what_a_killed_worker_left_half_removed_goes(tmp_path: Path) -> None:
    fill(tmp_path, ".trash-1")
    hold_kernels(tmp_path).close()
    assert not (tmp_path / "numba" / ".trash-1").exists()
