"""Makes the artifacts that the loaders are tried on, with the product's own environment, once per run."""

from __future__ import annotations

import importlib.util
import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Everything is local: a loader that asks a hub for something is a failure, not a download.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# The kernels are tried as they are written: compiling each of them anew takes minutes and changes no bit format.
os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")

# In the product's environment there is no loader to try; a run in the loaders' one that finds no test fails by itself.
collect_ignore_glob = [] if importlib.util.find_spec("gptqmodel") else ["test_*.py"]


def engine_python() -> Path:
    """Returns the interpreter that has the engine: `make install` made it."""
    return Path(os.environ.get("BITMILL_ENGINE_PYTHON", ROOT / ".venv" / "bin" / "python"))


@pytest.fixture(scope="session")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one artifact per case of `cases.CASES`, written by `core.pipeline`."""
    folder = tmp_path_factory.mktemp("artifacts")
    subprocess.run([engine_python(), "-m", "tests.loaders.make_artifacts", folder], cwd=ROOT, check=True)
    return folder
