"""Devices: refused where they are not there, and nothing of a run is made beside the device of its inputs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode

import core
from core.calibration.windows import CalibrationWindows
from core.configs import AdaRoundConfig, AWQConfig, GPTQConfig, Order, QuantizationConfig, RTNConfig
from core.device import find_devices
from core.errors import InvalidConfigError
from core.pipeline import Resources, quantize_checkpoint
from tests.core.tiny import random_tokens, write_tiny_model

FACTORIES = {
    getattr(torch, name)
    for name in ("arange", "empty", "eye", "full", "linspace", "ones", "rand", "randn", "randperm", "tensor", "zeros")
}
ROOT = Path(core.__file__).parent
OF_THE_CPU = (
    "checkpoint/",
    "formats/",
    "environment.py",
    "kernels/numba_",
    "kernels/compiled.py",
)
"""What reads, writes and packs, and the kernels that Numba compiles: on the CPU by their nature."""


class Unplaced(TorchFunctionMode):
    """Notes each line of the engine that makes a tensor without saying on which device."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: set[str] = set()
        self.placed = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401 - torch's
        options = kwargs or {}
        if func in FACTORIES:
            self._note(options.get("device"))
        return func(*args, **options)

    def _note(self, device: object) -> None:
        frame = sys._getframe(2)
        path = Path(frame.f_code.co_filename)
        if not path.is_relative_to(ROOT):
            return
        name = path.relative_to(ROOT).as_posix()
        self.placed += device is not None
        if device is None and not name.startswith(OF_THE_CPU):
            self.lines.add(f"{name}:{frame.f_lineno}")


def windows(samples: int = 16) -> CalibrationWindows:
    tokens = random_tokens(samples, 32)
    return CalibrationWindows(tokens_NT=tokens, sha256="0" * 64, tokens_available=tokens.numel())


@pytest.mark.parametrize(
    "config",
    [
        GPTQConfig(group_size=32, lm_head=True),
        GPTQConfig(group_size=32, order=Order.AUTO, sym=False, refine_rounds=1),
        GPTQConfig(group_size=32, order=Order.DESC_ACT, true_sequential=False),
        AWQConfig(group_size=32),
        AdaRoundConfig(group_size=32, iterations=3),
        RTNConfig(group_size=32),
    ],
    ids=lambda config: f"{config.method}-{getattr(config, 'order', '')}",
)
def test_every_tensor_is_made_on_the_device_of_the_inputs(config: QuantizationConfig, tmp_path: Path) -> None:
    """A tensor that is made without a device is made on the CPU and meets others elsewhere: no line makes one."""
    source = write_tiny_model(tmp_path / "model", num_hidden_layers=1, vocab_size=264)
    with Unplaced() as seen:
        quantize_checkpoint(source, tmp_path / "out", config, windows())
    assert seen.lines == set()
    assert seen.placed > 0


def test_experts_too(tmp_path: Path) -> None:
    source = write_tiny_model(tmp_path / "model", "qwen3_moe", num_hidden_layers=1)
    with Unplaced() as seen:
        quantize_checkpoint(source, tmp_path / "out", GPTQConfig(group_size=32, feed_all_experts=True), windows())
    assert seen.lines == set()


def test_a_tensor_without_a_device_would_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The watch itself works: a factory call in a file of the engine is noted by file and line."""
    code = compile("import torch\nmade = torch.zeros(3)\nplaced = torch.ones(3, device='cpu')\n", ROOT / "x.py", "exec")
    with Unplaced() as seen:
        exec(code, {})  # noqa: S102 - the test's own three lines
    assert seen.lines == {"x.py:2"}
    assert seen.placed == 1


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:-1", "CPU", "", "xla", "cuda:0 "])
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidConfigError, match="auto, cpu, cuda, cuda:N or mps") as refused:
        find_devices(name)
    assert refused.value.field == "device"


def test_a_device_that_is_not_there_is_refused_before_any_work(tmp_path: Path) -> None:
    """The refusal says how many there are and what else can be asked for; nothing is written."""
    beyond = f"cuda:{torch.cuda.device_count()}"
    source = write_tiny_model(tmp_path / "model", num_hidden_layers=1)
    with pytest.raises(InvalidConfigError, match=f"torch finds {torch.cuda.device_count()} CUDA devices"):
        quantize_checkpoint(
            source, tmp_path / "out", RTNConfig(group_size=32), None, resources=Resources(device=beyond)
        )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


def test_auto_takes_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA's first device where torch finds one, else the CPU; a number is taken at its word."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert find_devices("auto") == find_devices("cpu") == (torch.device("cpu"),)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert find_devices("auto") == find_devices("cuda") == (torch.device("cuda", 0),)
    assert find_devices("cuda:1") == (torch.device("cuda", 1),)
    with pytest.raises(InvalidConfigError, match=r"auto, cpu, cuda:0, cuda:1"):
        find_devices("cuda:2")
