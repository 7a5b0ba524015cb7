"""Checks a written artifact against its own format and against the loaders' rules, without any loader.

The rules are `core.preflight.targets`; this module brings the files. It does not compare weights with the source.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import safe_open

from core.configs import Format
from core.errors import ArtifactInvalidError, InvalidConfigError, ModelRefusedError
from core.formats import compressed_tensors
from core.formats.compressed_check import compressed_findings, compressed_linears
from core.formats.findings import Finding
from core.formats.gptq import V1, V2
from core.formats.packing import unpack
from core.formats.quantize_config import CONFIG_FILE, QUANTIZE_CONFIG_FILE, grid_for
from core.preflight.mixed import joined_linears, shapes_by_grid
from core.preflight.model_files import read_tensors
from core.preflight.rules import Grid, Target
from core.preflight.safetensors_header import TensorFacts
from core.preflight.targets import violations

REQUIRED_KEYS: Final = (
    "quant_method",
    "bits",
    "group_size",
    "sym",
    "desc_act",
    "checkpoint_format",
    "lm_head",
    "pack_dtype",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Artifact:
    folder: Path
    quantization: Mapping[str, Any]
    tensors: Mapping[str, TensorFacts]

    @property
    def prefixes(self) -> list[str]:
        return sorted(name.removesuffix(".qweight") for name in self.tensors if name.endswith(".qweight"))

    @property
    def linears(self) -> dict[str, tuple[Grid, tuple[int, int]]]:
        """Returns grid and (out_features, in_features) of every packed linear.

        Raises ArtifactInvalidError where `dynamic` leaves one in float or holds a pattern that is none.
        """
        found = {}
        for prefix in self.prefixes:
            grid = self._grid(prefix)
            words, out_features = self.tensors[f"{prefix}.qweight"].shape
            found[prefix] = grid, (out_features, words * 32 // grid.bits)
        return found

    def _grid(self, prefix: str) -> Grid:
        try:
            grid = grid_for(self.quantization, prefix)
        except InvalidConfigError as error:
            raise ArtifactInvalidError(CONFIG_FILE, str(error)) from error
        if grid is None:
            raise ArtifactInvalidError(CONFIG_FILE, f"dynamic leaves {prefix} in float, which is packed.")
        return grid

    def tensor(self, name: str) -> torch.Tensor:
        with safe_open(self.folder / self.tensors[name].file, framework="pt") as file:
            tensor: torch.Tensor = file.get_tensor(name)
        return tensor


def check_artifact(folder: Path, targets: Sequence[Target] = ()) -> list[Finding]:
    """Returns everything that is wrong with the folder, for every loader first, then for each of the targets.

    Raises ArtifactInvalidError where config or weights cannot be read at all.
    """
    artifact = _open(folder)
    if artifact.quantization.get("quant_method") == compressed_tensors.METHOD:
        return _check_compressed(artifact, targets)
    findings = [*_config_findings(folder, artifact.quantization)]
    if not findings:
        findings += _tensor_findings(artifact)
    if not findings:
        findings += _value_findings(artifact)
    if not findings:
        findings += [finding for target in targets for finding in _target_findings(artifact, target)]
    return findings


def _check_compressed(artifact: _Artifact, targets: Sequence[Target]) -> list[Finding]:
    findings = list(compressed_findings(artifact.quantization, artifact.tensors, artifact.tensor))
    if findings:
        return findings
    linears = compressed_linears(artifact.quantization, artifact.tensors)
    return [finding for target in targets for finding in _grid_findings(target, linears, Format.COMPRESSED_TENSORS)]


def _open(folder: Path) -> _Artifact:
    try:
        quantization = json.loads((folder / CONFIG_FILE).read_bytes())["quantization_config"]
        return _Artifact(folder=folder, quantization=dict(quantization), tensors=read_tensors(folder))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactInvalidError(CONFIG_FILE, f"no readable quantization_config ({error!r}).") from error
    except ModelRefusedError as error:
        raise ArtifactInvalidError("model.safetensors", error.detail) from error


def _config_findings(folder: Path, quantization: Mapping[str, Any]) -> Iterator[Finding]:
    missing = [key for key in REQUIRED_KEYS if key not in quantization]
    if missing:
        yield Finding(file=CONFIG_FILE, detail=f"quantization_config lacks {', '.join(missing)}.")
        return
    try:
        same = json.loads((folder / QUANTIZE_CONFIG_FILE).read_bytes()) == quantization
    except (OSError, ValueError):
        same = False
    if not same:
        yield Finding(file=QUANTIZE_CONFIG_FILE, detail="not the same object as config.json's quantization_config.")
    changes = (quantization.get("dynamic") or {}).values()
    expected = V1 if quantization["sym"] and all(changed.get("sym", True) for changed in changes) else V2
    if quantization["checkpoint_format"] != expected:
        yield Finding(file=CONFIG_FILE, detail=f"checkpoint_format is not {expected}, which sym asks for.")


def _tensor_findings(artifact: _Artifact) -> Iterator[Finding]:
    if not artifact.prefixes:
        yield Finding(file="model.safetensors", detail="no quantized linear.")
    for prefix, (grid, (out_features, in_features)) in artifact.linears.items():
        groups = 1 if grid.group_size == -1 else -(-in_features // grid.group_size)
        expected = {
            "qweight": ("int32", (in_features * grid.bits // 32, out_features)),
            "qzeros": ("int32", (groups, out_features * grid.bits // 32)),
            "scales": ("float16", (groups, out_features)),
            "g_idx": ("int32", (in_features,)),
        }
        if f"{prefix}.weight" in artifact.tensors:
            yield _tensor_finding(artifact, f"{prefix}.qweight", "the float weight is there too")
        for suffix, facts in expected.items():
            found = artifact.tensors.get(f"{prefix}.{suffix}")
            if found is None:
                yield _tensor_finding(artifact, f"{prefix}.qweight", f"{suffix} is absent")
            elif (found.dtype, found.shape) != facts:
                yield _tensor_finding(artifact, f"{prefix}.{suffix}", f"{found.dtype} {found.shape}, not {facts}")


def _value_findings(artifact: _Artifact) -> Iterator[Finding]:
    first = artifact.quantization["checkpoint_format"] == V1
    for prefix, (grid, (_, in_features)) in artifact.linears.items():
        g_idx = artifact.tensor(f"{prefix}.g_idx")
        width = in_features if grid.group_size == -1 else grid.group_size
        plain = torch.arange(in_features, dtype=torch.int32) // width
        if not artifact.quantization["desc_act"] and not torch.equal(g_idx, plain):
            yield _tensor_finding(artifact, f"{prefix}.g_idx", "not i // group_size, though desc_act is false")
        zeros = unpack(artifact.tensor(f"{prefix}.qzeros"), grid.bits)
        if grid.sym and not bool((zeros == 2 ** (grid.bits - 1) - first).all()):
            yield _tensor_finding(artifact, f"{prefix}.qzeros", "not the zero of a symmetric grid, though sym is true")
        scales = artifact.tensor(f"{prefix}.scales")
        if not bool(torch.isfinite(scales).all()) or not bool(scales.all()):
            yield _tensor_finding(artifact, f"{prefix}.scales", "a scale is zero or not finite")


def _target_findings(artifact: _Artifact, target: Target) -> Iterator[Finding]:
    yield from _grid_findings(target, artifact.linears, Format.GPTQ)
    if target is Target.VLLM:
        yield from _fused_findings(artifact)


def _grid_findings(
    target: Target, linears: Mapping[str, tuple[Grid, tuple[int, int]]], layout: Format
) -> Iterator[Finding]:
    """Yields what the target minds about each grid on its linears."""
    shapes = {name: shape for name, (_, shape) in linears.items()}
    for grid, part in shapes_by_grid({name: grid for name, (grid, _) in linears.items()}, shapes).items():
        for broken in violations(target, grid, part, layout):
            yield Finding(file=CONFIG_FILE, detail=broken.detail, target=target, severity=broken.severity)


def _fused_findings(artifact: _Artifact) -> Iterator[Finding]:
    """Yields where linears that vLLM joins into one matrix are not all quantized, or all left alone."""
    quantized = set(artifact.prefixes)
    floats = [name.removesuffix(".weight") for name in artifact.tensors if name.endswith(".weight")]
    for members in joined_linears([*artifact.prefixes, *floats]).values():
        packed = [name for name in members if name in quantized]
        for mate in members if packed else []:
            if mate not in quantized:
                yield _tensor_finding(artifact, f"{packed[0]}.qweight", f"{mate} is not quantized with it", Target.VLLM)


def _tensor_finding(artifact: _Artifact, name: str, problem: str, target: Target | None = None) -> Finding:
    return Finding(file=artifact.tensors[name].file, detail=f"{name}: {problem}.", target=target)
