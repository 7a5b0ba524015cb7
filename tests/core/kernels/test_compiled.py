"""Without Numba a run ends in the same codes, slower, and says so everywhere that a user looks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from core.configs import GPTQConfig
from core.formats.gptq import from_gptq_tensors
from core.kernels import compiled, numba_solver
from core.solver import kernels
from tests.core.tiny import write_tiny_model

RUN = """
import sys
if sys.argv.pop(1) == "without":
    sys.modules["numba"] = None  # what an import finds where it is not installed
from cli.main import main
main()
"""

FIRST_USE = """
import torch
torch.set_num_threads(1)
from core.kernels.compiled import trouble
print(trouble(), torch.get_num_threads())
"""


@pytest.fixture
def asked_anew() -> Iterator[None]:
    compiled.trouble.cache_clear()
    yield
    compiled.trouble.cache_clear()


def run(kind: str, source: Path, out: Path) -> subprocess.CompletedProcess[str]:
    options = ["--group-size", "32", "--samples", "8", "--seq-len", "32", "--json"]
    command = [sys.executable, "-c", RUN, kind, "run", "--src", str(source), "--dst", str(out), *options]
    return subprocess.run(command, capture_output=True, text=True, check=True)


def test_a_run_without_numba_says_so_and_finds_the_same_codes(tmp_path: Path):
    """On the terminal, in the summary and in the report; nearly every code is that of the compiled kernels."""
    source = write_tiny_model(tmp_path / "model", num_hidden_layers=1)
    ended = {kind: run(kind, source, tmp_path / kind) for kind in ("with", "without")}
    assert "compiled kernels" not in ended["with"].stderr
    assert "warning: The compiled kernels cannot be used" in ended["without"].stderr
    assert "many times the time" in " ".join(json.loads(ended["without"].stdout)["warnings"])
    report = json.loads((tmp_path / "without" / "quantization_report.json").read_text())
    assert any("Install numba" in warning for warning in report["warnings"])
    stored = [load_file(tmp_path / kind / "model.safetensors") for kind in ended]
    for name in (name for name in stored[0] if name.endswith(".qweight")):
        codes = [
            from_gptq_tensors(
                name.removesuffix(".qweight"), tensors, bits=4, group_size=32, sym=True, version="gptq"
            ).codes_OI
            for tensors in stored
        ]
        assert float((codes[0] == codes[1]).float().mean()) > 0.99


def test_the_kernels_leave_torch_its_number_of_threads():
    """Also at their first use, when Numba starts threads of its own, of which it may have more."""
    variables = {**os.environ, "NUMBA_NUM_THREADS": "2"}
    done = subprocess.run([sys.executable, "-c", FIRST_USE], env=variables, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["None", "1"]


def test_kernels_that_do_not_compile_are_named_and_not_used(asked_anew: None, monkeypatch: pytest.MonkeyPatch):
    """Numba is there but cannot keep what it compiles: the reason is told, and the reference solves."""

    def refuse(*_: object) -> None:
        raise RuntimeError("cannot cache function: no locator available")

    assert compiled.trouble() is None
    compiled.trouble.cache_clear()
    monkeypatch.setattr(numba_solver, "solve_columns", refuse)
    assert "no locator available" in str(compiled.trouble())
    W_OC = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    codes_OC, _ = kernels.solve_columns(W_OC, torch.eye(8), torch.full((4, 8), 0.1), torch.full((4, 8), 8.0), 15)
    assert codes_OC.shape == W_OC.shape


def test_the_default_config_solves_with_plain_torch(asked_anew: None, monkeypatch: pytest.MonkeyPatch):
    """No kernel is reached behind the choice: with Numba's module gone the default options still solve."""
    from core.solver.gptq import prepare_set, solve  # noqa: PLC0415 - after the module is hidden

    monkeypatch.setitem(sys.modules, "core.kernels.numba_solver", None)
    monkeypatch.delattr("core.kernels.numba_solver")
    generator = torch.Generator().manual_seed(0)
    X_NI, W_OI = (torch.randn(rows, 32, generator=generator) for rows in (64, 8))
    config = GPTQConfig(bits=4, group_size=32)
    weight = solve(W_OI, prepare_set(X_NI.T @ X_NI, config), config).weight
    assert compiled.trouble() is not None
    assert float((weight.dequantize() - W_OI).square().mean()) < float(W_OI.square().mean())
