"""Kernels that were compiled at install are found by processes that keep theirs in another folder."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from core.kernels.installed import take_over_installed
from tests.core.tiny import byte_tokenizer, tiny_model
from tests.kernels import ROOT, compiled_kernels
from worker.kernels import kernel_folder
from worker.settings import WorkerSettings

JOB = """
import json, sys
from pathlib import Path

import torch

from core.calibration.windows import CalibrationWindows
from core.configs import GPTQConfig
from core.pipeline import quantize_checkpoint

source, out = map(Path, sys.argv[1:])
tokens = torch.randint(0, 256, (16, 32), generator=torch.Generator().manual_seed(1))
windows = CalibrationWindows(tokens_NT=tokens, sha256="0" * 64, tokens_available=tokens.numel())
sym = not source.name.startswith("asymmetric")
quantize_checkpoint(source, out, GPTQConfig(bits=4, group_size=32, sym=sym, refine_rounds=1), windows)
# Some are compiled when their module is imported: a run does that once it has taken over the installed ones.
from core.kernels import numba_float32, numba_products, numba_refine, numba_solver

modules = (numba_solver, numba_products, numba_float32, numba_refine)
kernels = [kernel for module in modules for kernel in vars(module).values() if hasattr(kernel, "stats")]
stats = [kernel.stats for kernel in kernels if kernel.__module__.startswith("core.")]
print(json.dumps({
    "folders": sorted({stat.cache_path for stat in stats}),
    "hits": sum(sum(stat.cache_hits.values()) for stat in stats),
    "misses": sum(sum(stat.cache_misses.values()) for stat in stats),
    "package": str(Path(numba_solver.__file__).parents[2]),
}))
"""


@pytest.fixture
def package(tmp_path: Path) -> Iterator[Path]:
    """Our engine as an image has it: its kernels compiled beside the sources, where nobody may write any more."""
    site = tmp_path / "site"
    shutil.copytree(ROOT / "core", site / "core", ignore=shutil.ignore_patterns("__pycache__"))
    beside = site / "core" / "kernels" / "__pycache__"
    shutil.copytree(compiled_kernels(), beside)
    for path in (*beside.iterdir(), beside, beside.parent):
        path.chmod(0o555 if path.is_dir() else 0o444)
    yield site
    for path in (beside.parent, beside):
        path.chmod(0o755)


def job(package: Path, settings: WorkerSettings, source: Path, out: Path) -> dict[str, Any]:
    variables = {**settings.child_environment(), "PYTHONPATH": str(package)}
    command = [sys.executable, "-c", JOB, str(source), str(out)]
    done = subprocess.run(command, cwd=out.parent, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize(("name", "dtype"), [("symmetric", torch.bfloat16), ("asymmetric", torch.float32)])
def test_a_workers_first_job_compiles_nothing(name: str, dtype: torch.dtype, package: Path, tmp_path: Path) -> None:
    """It finds in the worker's cache folder what was compiled at install, of which nothing is touched."""
    source = tmp_path / name
    tiny_model(num_hidden_layers=1).to(dtype).save_pretrained(source)
    byte_tokenizer().save_pretrained(source)
    settings = WorkerSettings(cache_dir=tmp_path / "cache")
    before = _stamps(package)
    found = job(package, settings, source, tmp_path / "out")
    assert found["package"] == str(package)
    assert found["misses"] == 0
    assert found["hits"] > 0
    assert all(folder.startswith(str(kernel_folder(settings.cache_dir))) for folder in found["folders"])
    assert _stamps(package) == before


def _stamps(package: Path) -> dict[str, int]:
    files = (package / "core" / "kernels" / "__pycache__").glob("*.nb?")
    stamps = {path.name: path.stat().st_mtime_ns for path in files}
    assert stamps
    return stamps


def _written(folder: Path, **files: str) -> Path:
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / name.replace("_", ".")).write_text(text)
    return folder


def _texts(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_an_empty_folder_is_filled_and_no_other(tmp_path: Path) -> None:
    """With the kernels and nothing beside them; what a process compiled for itself stays."""
    installed = _written(tmp_path / "installed", a_nbi="index", a_1_nbc="code", a_pyc="bytecode")
    empty, own = _written(tmp_path / "cache" / "empty"), _written(tmp_path / "cache" / "own", b_nbi="own")
    for folder in (empty, own, installed):
        take_over_installed(installed, folder)
    assert _texts(empty) == {"a.nbi": "index", "a.1.nbc": "code"}
    assert _texts(own) == {"b.nbi": "own"}
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == ["empty", "own"]


def test_processes_that_begin_at_once_do_not_mind_each_other(tmp_path: Path) -> None:
    """One fills the folder, the others leave it as it is, and nothing half-written is ever seen."""
    installed = _written(tmp_path / "installed", **{f"k{number}_nbi": "index" * 1000 for number in range(50)})
    here = _written(tmp_path / "cache" / "here")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: take_over_installed(installed, here), range(32)))
    assert _texts(here) == _texts(installed)
    assert [path.name for path in here.parent.iterdir()] == ["here"]


def test_a_folder_that_cannot_be_filled_is_left_to_numba(tmp_path: Path) -> None:
    installed = _written(tmp_path / "installed", a_nbi="index")
    take_over_installed(installed, tmp_path / "nowhere" / "here")
    assert not (tmp_path / "nowhere").exists()
