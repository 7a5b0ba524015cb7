"""The algorithm that docs/adding-an-algorithm.md adds is an algorithm: the page's code runs as it stands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from core.calibration.windows import CalibrationWindows
from core.configs import RTNConfig
from core.configs.options import declared_options
from core.errors import InvalidConfigError
from core.evaluation.loading import load_model
from core.pipeline import quantize_checkpoint
from core.quantization import convert, prepare
from tests.core.tiny import random_tokens, tiny_model, write_tiny_model

PAGE = Path(__file__).parents[2] / "docs" / "adding-an-algorithm.md"


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the page's code defines, with its row where the engine looks for rows."""
    blocks = [part.split("```")[0] for part in PAGE.read_text().split("```python\n")[1:]]
    assert len(blocks) == 3
    found: dict[str, Any] = {"__name__": "a_third_algorithm"}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec", dont_inherit=True), found)  # noqa: S102 - our own page
    for module in ("core.quantizers.dispatch", "core.pipeline", "core.quantization"):
        monkeypatch.setattr(f"{module}.quantizer_for", found["quantizer_for"])
    return found


def test_the_page_adds_a_working_algorithm(names: dict[str, Any], tmp_path: Path) -> None:
    """From the options to an artifact that is nearer to the float model than round-to-nearest's."""
    config = names["WeightedConfig"](bits=3, group_size=32, dynamic={r"+:.*\.down_proj": {"signed_search": True}})
    source, tokens = write_tiny_model(tmp_path / "model"), random_tokens(32, 32)
    windows = CalibrationWindows(tokens_NT=tokens, sha256="0" * 64, tokens_available=tokens.numel())
    report = quantize_checkpoint(source, tmp_path / "new", config, windows)
    quantize_checkpoint(source, tmp_path / "rtn", RTNConfig(bits=3, group_size=32), None)
    assert all(row.loss is not None for row in report.linears)
    judged_on = random_tokens(6, 32, seed=8)
    with torch.no_grad():
        expected = load_model(source)(input_ids=judged_on).logits
        new, rtn = (load_model(tmp_path / name)(input_ids=judged_on).logits for name in ("new", "rtn"))
    assert float((new - expected).square().mean()) < float((rtn - expected).square().mean())


def test_the_page_s_options_are_declared_and_checked(names: dict[str, Any]) -> None:
    """The option has words, and a value of another type is refused by name."""
    assert declared_options(names["WeightedConfig"])["signed_search"].option.help
    with pytest.raises(InvalidConfigError, match="signed_search"):
        names["WeightedConfig"](signed_search="yes")


def test_the_page_s_algorithm_runs_in_memory(names: dict[str, Any]) -> None:
    """Prepare and convert choose it by the type of its config."""
    config = names["WeightedConfig"](bits=3, group_size=32)
    model = prepare(tiny_model(), config, kwargs={"input_ids": random_tokens(8, 32)})
    assert convert(model).get_submodule("model.layers.0.mlp.up_proj").bits == 3
