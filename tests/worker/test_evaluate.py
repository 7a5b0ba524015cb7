"""The evaluation stage: the artifact and NF4 beside it on the same text, and a plain word where NF4 cannot be had."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import pytest

from core.configs import RTNConfig
from core.errors import MissingPackageError
from core.evaluation.nf4 import NF4
from core.events import Event, StageAdvanced
from core.pipeline import quantize_checkpoint
from core.preflight.source import inspect_source
from tests.worker.models import write_tiny_llama
from worker.evaluate import evaluate


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A float model."""
    return write_tiny_llama(tmp_path_factory.mktemp("model") / "tiny", blocks=2, hidden=64)


@pytest.fixture
def artifact(model: Path, tmp_path: Path) -> Path:
    """The model at 8 bits."""
    quantize_checkpoint(model, tmp_path / "artifact", RTNConfig(bits=8, group_size=32), None)
    return tmp_path / "artifact"


def test_nf4_is_measured_beside_the_artifact(model: Path, artifact: Path):
    """Half the bits lose more on the same tokens, and take less room."""
    found = evaluate(model, artifact, inspect_source(model), lambda _: None, with_nf4=True)
    nf4 = found["nf4"]
    assert nf4["kl_divergence"] > found["kl_divergence"] > 0
    assert nf4["top1_agreement"] < found["top1_agreement"]
    assert nf4["perplexity_ratio"] == nf4["perplexity"] / found["perplexity_float"]
    assert nf4["bytes"] == NF4(model).weight_bytes() < found["bytes_quantized"]


def test_a_worker_without_bitsandbytes_says_so(model: Path, artifact: Path, monkeypatch: pytest.MonkeyPatch):
    """With what installs it; everything else is measured, and the card does not depend on it."""
    with_it = evaluate(model, artifact, inspect_source(model), lambda _: None, with_nf4=True)
    card = (artifact / "README.md").read_bytes()
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    monkeypatch.delitem(sys.modules, "bitsandbytes.functional", raising=False)
    without = evaluate(model, artifact, inspect_source(model), lambda _: None, with_nf4=True)
    assert without["nf4"] == {"missing": str(MissingPackageError("NF4", "bitsandbytes", "nf4"))}
    assert "pip install 'bitmill[nf4]'" in without["nf4"]["missing"]
    assert without["kl_divergence"] == with_it["kl_divergence"]
    assert (artifact / "README.md").read_bytes() == card


def test_nf4_is_left_out_on_request(model: Path, artifact: Path):
    """It takes no step then; what is measured of the artifact is the same."""
    steps: list[list[int]] = [[], []]
    found = [
        evaluate(model, artifact, inspect_source(model), partial(_note, noted), with_nf4=with_nf4)
        for noted, with_nf4 in zip(steps, (True, False), strict=True)
    ]
    assert found[1]["nf4"] is None
    assert found[1]["kl_divergence"] == found[0]["kl_divergence"]
    assert len(steps[1]) < len(steps[0])
    assert steps[1][-1] == len(steps[1])


def _note(noted: list[int], event: Event) -> None:
    if isinstance(event, StageAdvanced):
        noted.append(event.done)
