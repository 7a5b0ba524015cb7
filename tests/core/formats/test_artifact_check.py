"""The static check of a written artifact."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from core.configs import RTNConfig
from core.errors import ArtifactInvalidError
from core.formats.artifact_check import check_artifact
from core.formats.gptq import to_gptq_tensors
from core.formats.quantize_config import config_text, quantization_config_dict, quantize_config_text
from core.preflight.rules import Severity, Target
from tests.core.formats.samples import random_weight

Tensors = dict[str, torch.Tensor]
LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj")


def write(
    folder: Path, *, bits: int = 4, sym: bool = True, desc_act: bool = False, change: Callable[[Tensors], object] = len
) -> Path:
    """Writes a one-block artifact after `change` had a hand on its tensors."""
    tensors = {"model.embed.weight": torch.ones(8, 64)}
    for seed, name in enumerate(LINEARS):
        weight = random_weight(
            bits=bits, sym=sym, out_features=64, in_features=128, group_size=32, shuffled=desc_act, seed=seed
        )
        tensors |= to_gptq_tensors(f"model.layers.0.attn.{name}", weight, None)
    change(tensors)
    config = RTNConfig(bits=bits, group_size=32, sym=sym)
    quantization = quantization_config_dict(config, desc_act=desc_act, meta={})
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(config_text({"model_type": "llama"}, quantization))
    (folder / "quantize_config.json").write_text(quantize_config_text(quantization))
    return folder


@pytest.mark.parametrize("desc_act", [False, True])
@pytest.mark.parametrize(("bits", "sym"), [(bits, sym) for bits in (2, 3, 4, 8) for sym in (True, False)])
def test_a_right_artifact_has_no_finding(bits: int, sym: bool, desc_act: bool, tmp_path: Path):
    """Every width, both versions, plain and sorted groups, for the loaders that take all of them."""
    folder = write(tmp_path, bits=bits, sym=sym, desc_act=desc_act)
    assert check_artifact(folder, (Target.GPTQMODEL, Target.TRANSFORMERS)) == []


@pytest.mark.parametrize(
    ("bits", "sym", "fields"),
    [
        (4, True, []),
        (8, True, []),
        (3, True, ["bits=3"]),
        (4, False, ["sym=false"]),
        (2, False, ["bits=2", "sym=false"]),
    ],
)
def test_a_loader_gets_its_own_findings(bits: int, sym: bool, fields: list[str], tmp_path: Path):
    """The GPTQ path of vLLM takes symmetric 4 and 8 bits only."""
    findings = check_artifact(write(tmp_path, bits=bits, sym=sym), (Target.VLLM,))
    refusals = [finding for finding in findings if finding.severity is Severity.REFUSE]
    assert [finding.detail.split(":")[0] for finding in refusals] == fields
    assert all(finding.target is Target.VLLM for finding in refusals)


Q = "model.layers.0.attn.q_proj"


def corrupt_zero(tensors: Tensors) -> None:
    """Makes one zero point of a symmetric grid another one."""
    tensors[f"{Q}.qzeros"][0, 0] ^= 1


def shuffle(tensors: Tensors) -> None:
    """Sorts groups without saying so."""
    tensors[f"{Q}.g_idx"] = tensors[f"{Q}.g_idx"].flip(0).contiguous()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (corrupt_zero, "q_proj.qzeros: not the zero of a symmetric grid"),
        (shuffle, "q_proj.g_idx: not i // group_size"),
        (lambda tensors: tensors.pop(f"{Q}.g_idx"), "q_proj.qweight: g_idx is absent"),
        (
            lambda tensors: tensors.update({f"{Q}.weight": torch.ones(2)}),
            "q_proj.qweight: the float weight is there too",
        ),
        (lambda tensors: tensors.update({f"{Q}.scales": torch.ones(4, 64)}), "q_proj.scales: float32"),
        (
            lambda tensors: tensors.update({f"{Q}.scales": torch.ones(3, 64).half()}),
            r"q_proj.scales: float16 \(3, 64\)",
        ),
        (lambda tensors: tensors[f"{Q}.scales"].fill_(torch.inf), "q_proj.scales: a scale is zero or not finite"),
        (lambda tensors: [tensors.pop(name) for name in list(tensors) if "proj" in name], "no quantized linear"),
    ],
)
def test_damage_is_named(change: Callable[[Tensors], object], message: str, tmp_path: Path):
    """Each fault of a single tensor is found, and told by the tensor's name."""
    findings = check_artifact(write(tmp_path, change=change))
    assert len(findings) == 1
    assert re.search(message, findings[0].detail)


def test_linears_that_are_joined_are_quantized_alike(tmp_path: Path):
    """Where q, k and v become one matrix in vLLM: a float v among them is a finding for it and for nobody else."""

    def keep_v_float(tensors: Tensors) -> None:
        for name in list(tensors):
            if ".v_proj." in name:
                del tensors[name]
        tensors["model.layers.0.attn.v_proj.weight"] = torch.ones(64, 128)

    folder = write(tmp_path, change=keep_v_float)
    assert check_artifact(folder, (Target.GPTQMODEL,)) == []
    details = [
        finding.detail for finding in check_artifact(folder, (Target.VLLM,)) if finding.severity is Severity.REFUSE
    ]
    assert len(details) == 1
    assert all("v_proj is not quantized with it" in detail for detail in details)


def edit(path: Path, **values: object) -> None:
    """Changes keys of a JSON file's quantization settings; None takes a key out."""
    content = json.loads(path.read_text())
    settings = content.get("quantization_config", content)
    settings.update(values)
    for name in [name for name, value in values.items() if value is None]:
        del settings[name]
    path.write_text(json.dumps(content))


def test_config_faults_are_named(tmp_path: Path):
    """A missing key, two files that differ, a version that does not fit the grid."""
    folder = write(tmp_path)
    edit(folder / "quantize_config.json", bits=8)
    assert "not the same object" in check_artifact(folder)[0].detail
    for name in ("config.json", "quantize_config.json"):
        edit(folder / name, bits=4, checkpoint_format="gptq_v2")
    assert "checkpoint_format is not gptq" in check_artifact(folder)[0].detail
    edit(folder / "config.json", sym=None, desc_act=None)
    assert "lacks sym, desc_act" in check_artifact(folder)[0].detail


@pytest.mark.parametrize("broken", ["config.json", "model.safetensors"])
def test_an_unreadable_folder_is_an_error(broken: str, tmp_path: Path):
    """No config or no weights: there is nothing to check."""
    folder = write(tmp_path)
    (folder / broken).write_bytes(b"{")
    with pytest.raises(ArtifactInvalidError):
        check_artifact(folder)
