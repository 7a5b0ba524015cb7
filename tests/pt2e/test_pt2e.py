"""Weights go through PT2E as they are, activations become 8-bit, and what cannot be handed on is refused."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.fx import GraphModule, Node
from torchao.quantization.pt2e import PerChannelMinMaxObserver

from core.configs import ActivationRange, GPTQConfig, PT2EConfig
from core.errors import CalibrationRefusedError, InvalidConfigError
from core.model.modules import QuantizedLinear
from core.quantization import convert, prepare
from core.quantizers import pt2e
from tests.core.tiny import random_tokens, tiny_model

TOKENS = random_tokens(2, 32, seed=9)
LAYERS = {"gpt2": "n_layer"}
DEQUANTIZE = torch.ops.quantized_decomposed.dequantize_per_channel.default


def _gptq(bits: int, family: str = "llama", **options: object) -> nn.Module:
    grid = {"bits": bits, "group_size": -1, "signed_scales": False, **options}
    model = tiny_model(family, **{LAYERS.get(family, "num_hidden_layers"): 1})
    config = GPTQConfig(**grid)  # type: ignore[arg-type]  # test options
    return convert(prepare(model, config, kwargs={"input_ids": random_tokens(16, 32)}))


def _calibrated(prepared: nn.Module) -> nn.Module:
    with torch.no_grad():
        for batch in random_tokens(4, 32).split(2):
            prepared(input_ids=batch)
    return prepared


def _prepared(model: nn.Module, config: PT2EConfig | None = None) -> nn.Module:
    return prepare(model, config or PT2EConfig(), kwargs={"input_ids": TOKENS}, inplace=False)


def _logits(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = model(input_ids=TOKENS).logits
    return logits


def _distance(model: nn.Module, other: nn.Module) -> float:
    expected = _logits(other)
    return float((_logits(model) - expected).norm() / expected.norm())


def _stored(graph: nn.Module) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Returns codes, scales and zeros of every quantized weight in the order of the graph's linears."""
    assert isinstance(graph, GraphModule)

    def tensor(node: object) -> torch.Tensor:
        assert isinstance(node, Node)
        return graph.get_buffer(str(node.target))

    linears = [node for node in graph.graph.nodes if node.target is torch.ops.aten.linear.default]
    weights = [node.args[1] for node in linears if node.args[1].target is DEQUANTIZE]
    return [(tensor(w.args[0]), tensor(w.args[1]), tensor(w.args[2])) for w in weights]


def _solved(model: nn.Module) -> list[QuantizedLinear]:
    return [module for module in model.modules() if isinstance(module, QuantizedLinear)]


@pytest.mark.parametrize("sym", [True, False])
@pytest.mark.parametrize("bits", [4, 8])
def test_the_weights_behind_pt2e_are_gptqs(bits: int, sym: bool):
    """Integers (shifted by half the grid), scales and zeros are the same, and so is every dequantized value."""
    model = _gptq(bits, sym=sym)
    stored = _stored(convert(_calibrated(_prepared(model))))
    assert len(stored) == len(_solved(model)) == 7
    for module, (codes, scales, zeros) in zip(_solved(model), stored, strict=True):
        half = 1 << (bits - 1)
        assert codes.dtype is torch.int8
        assert torch.equal(codes.int() + half, module.codes.int())
        assert torch.equal(zeros.int() + half, module.zeros[:, 0].int())
        dequantized = scales[:, None] * (codes.float() - zeros[:, None])
        assert torch.equal(dequantized, module.dequantize())


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt"])
def test_eight_bit_activations_change_little(family: str):
    """On families with and without biases the graph runs and stays within a few percent of the quantized model."""
    model = _gptq(8, family)
    assert 0 < _distance(convert(_calibrated(_prepared(model))), model) < 0.1


class _Guessing(pt2e._HandingOn):  # type: ignore[misc]  # torchao is untyped
    """Annotates the same linears, and leaves the weights' scales to PT2E."""

    def annotate(self, model: GraphModule) -> GraphModule:
        for node in super().annotate(model).graph.nodes:
            annotation = node.meta.get("quantization_annotation")
            if annotation is not None and node.target is torch.ops.aten.linear.default:
                grid = self._grid_of(node)
                guess = pt2e.QuantizationSpec(
                    dtype=torch.int8,
                    quant_min=grid.lowest,
                    quant_max=grid.highest,
                    qscheme=torch.per_channel_symmetric,
                    ch_axis=0,
                    observer_or_fake_quant_ctr=PerChannelMinMaxObserver,
                )
                annotation.input_qspec_map[node.args[1]] = guess
        return model


def test_guessing_the_scales_again_is_worse(monkeypatch: pytest.MonkeyPatch):
    """Left to PT2E, the same weights at 4 bits move off GPTQ's grid and the model away from GPTQ's by a multiple."""
    model = _gptq(4)
    handed_on = convert(_calibrated(_prepared(model)))
    monkeypatch.setattr(pt2e, "_HandingOn", _Guessing)
    guessed = convert(_calibrated(_prepared(model)))
    moved = [
        float((scales[:, None] * (codes.float() - zeros[:, None]) - module.dequantize()).norm())
        for module, (codes, scales, zeros) in zip(_solved(model), _stored(guessed), strict=True)
    ]
    assert min(moved) > 0
    assert _distance(guessed, model) > 1.5 * _distance(handed_on, model)


def test_the_activation_range_is_a_choice():
    """Both ranges quantize every linear's input; they differ in what they make of outliers."""
    model = _gptq(8)
    graphs = [convert(_calibrated(_prepared(model, PT2EConfig(activation_range=choice)))) for choice in ActivationRange]
    assert _distance(graphs[0], graphs[1]) > 0


def test_what_cannot_be_handed_on_is_refused():
    """Groups, negative scales, float models, other dtypes and a missing example are named with the remedy."""
    with pytest.raises(InvalidConfigError, match="one scale per output") as refused:
        _prepared(_gptq(4, group_size=32))
    assert (refused.value.field, refused.value.allowed) == ("group_size", "-1")
    with pytest.raises(InvalidConfigError, match="positive scales") as refused:
        _prepared(_gptq(4, signed_scales=True))
    assert refused.value.field == "signed_scales"
    with pytest.raises(InvalidConfigError, match="no quantized linear"):
        _prepared(tiny_model(num_hidden_layers=1))
    with pytest.raises(InvalidConfigError, match="bfloat16"):
        _prepared(copy.deepcopy(_gptq(4)).to(torch.bfloat16))
    with pytest.raises(InvalidConfigError, match="example"):
        prepare(_gptq(4), PT2EConfig())


def test_calibration_calls_are_asked_for():
    """Convert right after prepare says what is missing, and takes no second config."""
    prepared = _prepared(_gptq(4))
    with pytest.raises(CalibrationRefusedError, match="No call was made"):
        convert(prepared, inplace=False)
    with pytest.raises(InvalidConfigError, match="keeps the config"):
        convert(_calibrated(prepared), GPTQConfig())


def test_inplace_false_leaves_the_quantized_model_alone():
    """The given model keeps its integer modules."""
    model = _gptq(4)
    _prepared(model)
    assert len(_solved(model)) == 7


def test_the_documented_chain_runs():
    """The code of docs/pt2e.md quantizes weights and activations as it stands."""
    page = (Path(__file__).parents[2] / "docs" / "pt2e.md").read_text()
    code = page.split("```python\n")[1].split("```")[0]
    names = {"model": tiny_model(num_hidden_layers=1), "calibration_batches": list(random_tokens(8, 32).split(4))}
    exec(code, names)  # noqa: S102 - our own page
    assert isinstance(names["graph"], GraphModule)
    assert len(_stored(names["graph"])) == 7
