from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from transformers.models.gemma2.modeling_gemma2 import Gemma2RMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm

from core.kernels import numba_gate
from core.model import intermediates
from core.model.intermediates import spare_intermediates, sparing_intermediates
from tests.core.tiny import tiny_model

WIDTH = 1024


class _DoublyGated(nn.Module):
    """Has the names of a gated network and another forward."""

    def __init__(self) -> None:
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = (nn.Linear(8, 8) for _ in range(3))
        self.act_fn = nn.SiLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate = self.gate_proj(x)
        return self.down_proj(self.act_fn(gate) * gate * self.up_proj(x))  # type: ignore[no-any-return]


class _Centered(nn.Module):
    """Has something to do with all numbers of a row."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x - x.mean(dim=-1, keepdim=True)


def _refuse(*_: object) -> torch.Tensor:
    raise AssertionError("the module's own forward was called")


def _apart(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Returns how many bfloat16 numbers lie between, for numbers of the same sign."""
    return (left.view(torch.int16).int() - right.view(torch.int16).int()).abs()


def _largest_tensor(call: Callable[[], torch.Tensor], monkeypatch: pytest.MonkeyPatch) -> int:
    """Returns how many numbers the largest input of the norm's own forward had."""
    seen: list[int] = []
    own = LlamaRMSNorm.forward

    def note(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
        seen.append(x.numel())
        return own(module, x)

    with monkeypatch.context() as patch:
        patch.setattr(LlamaRMSNorm, "forward", note)
        call()
    return max(seen)


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [(Gemma2RMSNorm, torch.bfloat16), *((k, torch.float32) for k in (LlamaRMSNorm, Qwen3RMSNorm, Gemma2RMSNorm))],
)
def test_norms_give_the_same_bytes_in_parts(kind: type[nn.Module], dtype: torch.dtype) -> None:
    """Of a whole number of parts and of one more row, in any dtype, whatever the norm's own formula is."""
    norm = kind(WIDTH).to(dtype)
    norm.get_parameter("weight").data = torch.randn(WIDTH, generator=torch.Generator().manual_seed(0)).to(dtype)
    thrifty = nn.ModuleList([norm])
    with torch.no_grad():
        for rows in (1024, 1025):
            x = torch.randn(2, rows, WIDTH, generator=torch.Generator().manual_seed(rows)).to(dtype)
            whole = norm(x)
            with sparing_intermediates(thrifty):
                assert torch.equal(norm(x), whole)


@pytest.mark.parametrize("kind", [LlamaRMSNorm, Qwen3RMSNorm])
def test_plain_norms_of_bfloat16_are_the_compiled_one(kind: type[nn.Module], monkeypatch: pytest.MonkeyPatch) -> None:
    """It is used, with the module's own weight and epsilon, and one result in a thousand at most is the next number."""
    norm = kind(WIDTH, 3e-4).bfloat16()
    norm.get_parameter("weight").data = torch.randn(WIDTH, generator=torch.Generator().manual_seed(0)).bfloat16()
    x = 0.02 * torch.randn(2, 100, WIDTH, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        whole = norm(x.bfloat16())
        with sparing_intermediates(nn.ModuleList([norm])):
            monkeypatch.setattr(intermediates, "_norm_in_parts", _refuse)
            found = norm(x.bfloat16())
    assert _apart(found, whole).max() <= 1
    assert (found != whole).float().mean() <= 1e-3


def test_a_norm_that_adds_one_to_its_weight_keeps_its_own_forward() -> None:
    """Gemma's formula has the same names and another result."""
    norm = Gemma2RMSNorm(64).bfloat16()
    spare_intermediates(norm)
    x = torch.randn(3, 64).bfloat16()
    with torch.no_grad():
        assert torch.equal(norm(x), Gemma2RMSNorm(64).bfloat16()(x))


def test_a_large_norm_never_works_on_all_rows_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its float32 copies are a part's."""
    norm, x = LlamaRMSNorm(WIDTH), torch.randn(1, 2048, WIDTH)
    spare_intermediates(norm)
    with torch.no_grad():
        assert _largest_tensor(lambda: norm(x), monkeypatch) <= 1 << 17


@pytest.mark.parametrize("family", ["llama", "qwen3", "mistral", "gemma2"])
def test_models_give_the_same_logits(family: str) -> None:
    """Bit by bit, with activations that have an in-place form and with others, and again afterwards."""
    model = tiny_model(family)
    ids = torch.arange(24)[None]
    with torch.no_grad():
        before = model(ids).logits
        with sparing_intermediates(model):
            replaced = [module for module in model.modules() if "forward" in module.__dict__]
            assert torch.equal(model(ids).logits, before)
    assert len(replaced) >= 3 * len(model.model.layers)
    assert not [module for module in model.modules() if "forward" in module.__dict__]


def test_another_forward_under_the_same_names_is_left_alone() -> None:
    """Whether a module is plainly gated is seen on what it computes."""
    module = _DoublyGated()
    spare_intermediates(module)
    assert "forward" not in module.__dict__


def test_gradients_still_flow() -> None:
    """Nothing is overwritten that a gradient needs."""
    model = tiny_model("llama")
    spare_intermediates(model)
    model(torch.arange(8)[None]).logits.sum().backward()
    gradients: list[Any] = [parameter.grad for parameter in model.parameters()]
    assert all(gradient is not None for gradient in gradients)


def test_what_enters_is_not_written_to() -> None:
    """The gate is multiplied where it lies, which is nobody's input."""
    model = tiny_model("llama")
    network = model.model.layers[0].mlp
    x = torch.randn(1, 5, model.config.hidden_size)
    before = x.clone()
    spare_intermediates(model)
    with torch.no_grad():
        network(x)
    assert torch.equal(x, before)


@pytest.mark.parametrize("activation", ["silu", "gelu_pytorch_tanh"])
def test_large_gates_are_looked_up_bit_by_bit(activation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table of all bfloat16 numbers serves from some size on; smaller gates, and other dtypes, go to torch."""
    network = tiny_model("llama", hidden_act=activation).model.layers[0].mlp.bfloat16()
    looked_up: list[int] = []
    own = numba_gate.gate

    def note(inner: torch.Tensor, up: torch.Tensor, table: torch.Tensor) -> None:
        looked_up.append(inner.numel())
        own(inner, up, table)

    monkeypatch.setattr(numba_gate, "gate", note)
    x = torch.randn(intermediates.LOOKED_UP_NUMBERS // 128, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for rows in (x.bfloat16(), x.bfloat16()[1:]):
            whole = network(rows)
            with sparing_intermediates(network):
                assert torch.equal(network(rows), whole)
        network.float()
        with sparing_intermediates(network):
            network(x)
    assert looked_up == [intermediates.LOOKED_UP_NUMBERS]


def test_an_activation_that_looks_at_its_neighbours_has_no_table() -> None:
    """What is not a function of one number is computed by itself."""
    assert intermediates._is_pointwise(nn.SiLU)
    assert not intermediates._is_pointwise(_Centered)
