from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from core.configs import GPTQConfig, PT2EConfig, QuantizationConfig, RTNConfig
from core.errors import CalibrationRefusedError, MissingPackageError
from core.model.modules import QuantizedLinear
from core.model.structure import find_blocks, find_linears
from core.quantization import convert, prepare
from tests.core.tiny import FAMILIES, random_tokens, tiny_model

CONFIGS = [GPTQConfig(bits=4, group_size=32), RTNConfig(bits=4, group_size=32)]


def _quantized(family: str, config: QuantizationConfig, **options: bool) -> nn.Module:
    model = prepare(tiny_model(family), config)
    for batch in random_tokens(16, 32).split(4):
        with torch.no_grad():
            model(input_ids=batch)
    return convert(model, **options)


def _distance(family: str, model: nn.Module) -> float:
    tokens = random_tokens(8, 32, seed=9)
    with torch.no_grad():
        expected = tiny_model(family)(input_ids=tokens).logits
        return float((model(input_ids=tokens).logits - expected).square().mean() / expected.square().mean())


@pytest.mark.parametrize("family", FAMILIES)
def test_gptq_is_nearer_to_the_float_model_than_rounding(family: str) -> None:
    """On every family, on tokens that were not calibration, GPTQ's outputs are nearer than round-to-nearest's."""
    gptq, rtn = (_distance(family, _quantized(family, config)) for config in CONFIGS)
    assert gptq < rtn


@pytest.mark.parametrize("config", CONFIGS, ids=["gptq", "rtn"])
def test_linears_become_integer_modules(config: QuantizationConfig) -> None:
    """Every linear of every block holds codes, scales and zeros, computes with them, and no float weight is left."""
    model = _quantized("llama", config)
    replaced = [module for module in model.modules() if isinstance(module, QuantizedLinear)]
    assert len(replaced) == 3 * 7
    assert not any(find_linears(block) for block in find_blocks_of_tiny(model))
    for module in replaced:
        assert module.codes.dtype == torch.uint8
        assert int(module.codes.max()) <= 15
        assert not list(module.parameters())
        x = torch.randn(2, module.in_features)
        torch.testing.assert_close(module(x), x @ module.dequantize().T)


def find_blocks_of_tiny(model: nn.Module) -> list[nn.Module]:
    return list(model.get_submodule("model.layers").children())


def test_biases_and_conv1d_survive() -> None:
    """GPT-2's transposed, biased Conv1D layers become the same integer modules and keep their biases."""
    original = find_blocks(tiny_model("gpt2")).modules[0].get_submodule("attn.c_attn")
    module = _quantized("gpt2", CONFIGS[0]).get_submodule("transformer.h.0.attn.c_attn")
    assert isinstance(module, QuantizedLinear)
    assert module.bias is not None
    assert torch.equal(module.bias, original.bias)
    assert (module.out_features, module.in_features) == (192, 64)


def test_inplace_false_leaves_the_model_alone() -> None:
    """With inplace=False neither prepare nor convert changes what it was given."""
    model = tiny_model("llama")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    prepared = prepare(model, CONFIGS[0], kwargs={"input_ids": random_tokens(4, 32)}, inplace=False)
    assert prepared is not model
    converted = convert(prepared, inplace=False)
    assert converted is not prepared
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert find_linears(find_blocks(prepared).modules[0])


def test_an_example_call_is_calibration() -> None:
    """Args and kwargs of prepare are run at once and count as calibration, like a later call with the same tokens."""
    tokens = random_tokens(4, 32)
    by_example = convert(prepare(tiny_model("llama"), CONFIGS[0], args=(tokens,)))
    by_call = prepare(tiny_model("llama"), CONFIGS[0])
    with torch.no_grad():
        by_call(tokens)
    same = convert(by_call).state_dict()
    assert all(torch.equal(value, same[name]) for name, value in by_example.state_dict().items())


def test_padding_does_not_reach_the_hessian() -> None:
    """Padded positions under an attention mask leave the result as it is without them."""
    tokens = random_tokens(24, 24)
    padded = torch.cat([tokens, torch.full((24, 8), 259)], dim=1)
    mask = torch.cat([torch.ones(24, 24), torch.zeros(24, 8)], dim=1).long()
    # Without the float path: it amplifies the float rounding by which two attention kernels differ.
    config = GPTQConfig(bits=4, group_size=32, mismatch_alpha=0.0)
    plain = convert(prepare(tiny_model("llama"), config, kwargs={"input_ids": tokens}))
    masked = convert(prepare(tiny_model("llama"), config, kwargs={"input_ids": padded, "attention_mask": mask}))
    codes = [
        torch.cat([module.codes.flatten() for module in model.modules() if isinstance(module, QuantizedLinear)])
        for model in (plain, masked)
    ]
    assert float((codes[0] == codes[1]).float().mean()) > 0.99


def test_gptq_without_calibration_is_refused() -> None:
    """Convert right after prepare says what is missing; RTN needs neither prepare nor calls."""
    with pytest.raises(CalibrationRefusedError, match="No call was made"):
        convert(prepare(tiny_model("llama"), CONFIGS[0]))
    with pytest.raises(CalibrationRefusedError, match="not prepared"):
        convert(tiny_model("llama"))
    assert isinstance(
        convert(tiny_model("llama"), CONFIGS[1]).get_submodule("model.layers.0.mlp.up_proj"), QuantizedLinear
    )


def test_calibration_on_the_unquantized_block_differs() -> None:
    """true_sequential decides whether later linears see the quantized ones before them."""
    results = []
    for sequential in (True, False):
        config = GPTQConfig(bits=2, group_size=32, true_sequential=sequential)
        model = prepare(tiny_model("llama"), config, kwargs={"input_ids": random_tokens(16, 32)})
        results.append(convert(model).get_submodule("model.layers.0.mlp.down_proj").codes)
    assert not torch.equal(results[0], results[1])


def test_activations_need_torchao(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without torchao the rest of the engine runs, and PT2EConfig says what to install."""
    monkeypatch.setitem(sys.modules, "torchao", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'bitmill\[pt2e\]'"):
        prepare(convert(tiny_model("llama"), CONFIGS[1]), PT2EConfig(), args=(random_tokens(1, 8),))


def test_the_documented_example_runs() -> None:
    """The code of docs/python.md quantizes a model as it stands."""
    page = (Path(__file__).parents[2] / "docs" / "python.md").read_text()
    code = page.split("```python\n")[1].split("```")[0]
    names = {"model": tiny_model("llama"), "calibration_batches": random_tokens(8, 32).split(4)}
    exec(code, names)  # noqa: S102 - our own page
    assert isinstance(names["model"].get_submodule("model.layers.0.mlp.up_proj"), QuantizedLinear)
