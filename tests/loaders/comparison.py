"""Logits of an artifact through each loader, and through plain transformers on weights that the reference unpacked.

The reference shares no code with the engine and none with the loaders' dequantization.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import torch
from gptqmodel import BACKEND, GPTQModel
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, GPTQConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from tests.reference.unpacker import dequantized_weight

TOKENS: Final = torch.arange(3, 51).reshape(2, 24)
PACKED: Final = ("qweight", "qzeros", "scales", "g_idx")


def relative_difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Returns |found - expected| / |expected|, Frobenius norms in float64."""
    return float((found.double() - expected.double()).norm() / expected.double().norm())


def logits(model: torch.nn.Module) -> torch.Tensor:
    """Returns the logits [2, 24, vocabulary] on a fixed pair of token windows, as float32."""
    with torch.no_grad():
        output: torch.Tensor = model(TOKENS).logits
    return output.float()


@cache
def reference_logits(
    folder: Path, *, packed: torch.dtype = torch.float32, kept: torch.dtype = torch.float32
) -> torch.Tensor:
    """Returns the float32 logits of the unpacked artifact.

    packed, kept: what unpacked weights, and all other tensors, are rounded to first, for loaders that do so. float32
    holds scale * (code - zero) exactly.
    """
    state = {
        name: tensor.to(kept).float()
        for name, tensor in load_file(folder / "model.safetensors").items()
        if name.rpartition(".")[2] not in PACKED
    }
    in_first = names_of_transposed(folder)
    for prefix, weight_OI in unpacked(folder).items():
        weight = weight_OI.to(packed).float()
        state[f"{prefix}.weight"] = weight.T.contiguous() if prefix in in_first else weight
    with TemporaryDirectory() as plain:
        # Through a folder: transformers then renames the checkpoint's tensors as it does for the artifact.
        config = AutoConfig.from_pretrained(folder)
        del config.quantization_config
        config.save_pretrained(plain)
        save_file(state, Path(plain) / "model.safetensors", metadata={"format": "pt"})
        return logits(AutoModelForCausalLM.from_pretrained(plain, dtype=torch.float32).eval())


def names_of_transposed(folder: Path) -> set[str]:
    """Returns the modules whose weight transformers keeps as [in, out], an embedding's tokens being its inputs."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
    return {name for name, module in model.named_modules() if isinstance(module, (Conv1D, torch.nn.Embedding))}


@cache
def unpacked(folder: Path) -> dict[str, torch.Tensor]:
    """Returns every quantized linear's exact weight [O, I], float64, by its name."""
    tensors = load_file(folder / "model.safetensors")
    version = json.loads((folder / "quantize_config.json").read_text())["checkpoint_format"]
    return {
        prefix: dequantized_weight(prefix, tensors, stored_bits(prefix, tensors), version)
        for prefix in sorted(name.removesuffix(".qweight") for name in tensors if name.endswith(".qweight"))
    }


def stored_bits(prefix: str, tensors: dict[str, torch.Tensor]) -> int:
    """Returns a linear's width by its tensors alone, so that the config's patterns are tried and not trusted."""
    return tensors[f"{prefix}.qweight"].shape[0] * 32 // len(tensors[f"{prefix}.g_idx"])


def through_gptqmodel(folder: Path) -> PreTrainedModel:
    """Loads through GPTQModel with its plain torch kernel, in float16: it refuses float32 at loading."""
    loaded = GPTQModel.load(str(folder), device="cpu", backend=BACKEND.GPTQ_TORCH, dtype=torch.float16)
    model: PreTrainedModel = loaded.model
    return model.eval()


def through_gptqmodel_exactly(folder: Path) -> torch.nn.Module:
    """Loads through GPTQModel, then computes in float32."""
    return through_gptqmodel(folder).float()


def through_transformers(folder: Path) -> PreTrainedModel:
    """Loads as a user does: dtype from the config, kernel of the loader's choice."""
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, device_map="cpu")
    return model.eval()


def through_transformers_exactly(folder: Path) -> PreTrainedModel:
    """Loads in float32 with the plain torch kernel; the one that transformers prefers computes in bfloat16 inside."""
    bits = json.loads((folder / "quantize_config.json").read_text())["bits"]
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        folder,
        device_map="cpu",
        dtype=torch.float32,
        quantization_config=GPTQConfig(bits=bits, backend="gptq_torch"),
    )
    return model.eval()


def quantized_linears(model: torch.nn.Module) -> set[str]:
    """Returns the names of the modules that hold packed weights."""
    return {name for name, module in model.named_modules() if hasattr(module, "qweight")}
