"""What each loader can load, as one versioned table: facts about the loaders' source at the named versions.

Each row is about one layout of the checkpoint, for one device (no tensor parallelism). Standard library only.
"""

from __future__ import annotations

from core.configs import BITS, Format
from core.preflight.rules import FamilyRule, LayoutRule, Multiple, OptionRule, Rule, Severity, ShapeRule, Target

VLLM_VERSIONS = "vllm main, read in 2026-11"
VLLM_CONFIG = "vllm/model_executor/layers/quantization/auto_gptq.py at 055e47c2"
VLLM_MARLIN = "vllm/model_executor/layers/quantization/utils/marlin_utils.py at 007d5005"
VLLM_COMPRESSED = (
    "vllm/model_executor/layers/quantization/compressed_tensors/schemes/compressed_tensors_wNa16.py (WNA16_*_TYPES_MAP)"
)
GPTQMODEL_VERSIONS = "gptqmodel 7.6.0"
GPTQMODEL_TORCH = "gptqmodel/nn_modules/qlinear/torch.py (TorchLinear.SUPPORTS_*)"
TRANSFORMERS_VERSIONS = "transformers 5.23.0, optimum 2.3.0, gptqmodel 7.6.0"
TRANSFORMERS_GPTQ = "transformers/quantizers/quantizer_gptq.py, through optimum into gptqmodel's TorchLinear"

# The linears that vLLM joins into one matrix, by the last part of their names.
FUSED_LINEARS = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"), ("w1", "w3"))

TORCH_GROUP_SIZES = (-1, 16, 32, 64, 128, 256, 512, 1024)


def _marlin_tiles(layout: Format) -> tuple[Rule, ...]:
    """Returns the shapes that vLLM's fastest kernel takes, the same in both layouts."""
    return (
        ShapeRule(
            target=Target.VLLM,
            layout=layout,
            field="out_features",
            multiple_of=64,
            fused=True,
            severity=Severity.SLOWER,
            reason="the Marlin kernel works in tiles of 64 outputs",
            versions=VLLM_VERSIONS,
            source=VLLM_MARLIN,
        ),
        ShapeRule(
            target=Target.VLLM,
            layout=layout,
            field="in_features",
            multiple_of=128,
            severity=Severity.SLOWER,
            reason="the Marlin kernel works in tiles of 128 inputs",
            versions=VLLM_VERSIONS,
            source=VLLM_MARLIN,
        ),
    )


def _gptqmodel_rules(target: Target, versions: str, source: str) -> tuple[Rule, ...]:
    """Returns the rules of gptqmodel's own loader, which transformers calls too."""
    return (
        OptionRule(
            target=target,
            field="bits",
            allowed=BITS,
            reason="no kernel for this width",
            versions=versions,
            source=source,
        ),
        OptionRule(
            target=target,
            field="group_size",
            allowed=TORCH_GROUP_SIZES,
            row_group_allowed=True,
            reason="its kernels take no other group size, unless it is the whole row",
            versions=versions,
            source=source,
        ),
    )


RULES: tuple[Rule, ...] = (
    OptionRule(
        target=Target.VLLM,
        field="bits",
        allowed=(4, 8),
        reason="its GPTQ loader knows 4 and 8 bits only",
        versions=VLLM_VERSIONS,
        source=VLLM_CONFIG,
    ),
    OptionRule(
        target=Target.VLLM,
        field="sym",
        allowed=(True,),
        reason="its GPTQ loader knows symmetric grids only",
        versions=VLLM_VERSIONS,
        source=VLLM_CONFIG,
    ),
    OptionRule(
        target=Target.VLLM,
        field="group_size",
        allowed=(-1, 32, 64, 128),
        reason="its GPTQ loader takes these group sizes only",
        versions=VLLM_VERSIONS,
        source=VLLM_MARLIN,
    ),
    ShapeRule(
        target=Target.VLLM,
        field="in_features",
        multiple_of=Multiple.GROUP_SIZE,
        reason="every group must be full",
        versions=VLLM_VERSIONS,
        source=VLLM_MARLIN,
    ),
    ShapeRule(
        target=Target.VLLM,
        field="out_features",
        multiple_of=Multiple.CODES_PER_WORD,
        fused=True,
        reason="zeros are packed in whole words",
        versions=VLLM_VERSIONS,
        source=VLLM_CONFIG,
    ),
    *_marlin_tiles(Format.GPTQ),
    OptionRule(
        target=Target.VLLM,
        layout=Format.COMPRESSED_TENSORS,
        field="bits",
        allowed=(4, 8),
        where_sym=False,
        reason="it knows asymmetric grids of these widths only",
        versions=VLLM_VERSIONS,
        source=VLLM_COMPRESSED,
    ),
    OptionRule(
        target=Target.VLLM,
        layout=Format.COMPRESSED_TENSORS,
        field="bits",
        allowed=(4, 8),
        where_sym=True,
        severity=Severity.SLOWER,
        reason="the Marlin kernel takes these widths only",
        versions=VLLM_VERSIONS,
        source=VLLM_MARLIN,
    ),
    OptionRule(
        target=Target.VLLM,
        layout=Format.COMPRESSED_TENSORS,
        field="group_size",
        allowed=(-1, 32, 64, 128),
        reason="its kernels take these group sizes only",
        versions=VLLM_VERSIONS,
        source=VLLM_MARLIN,
    ),
    ShapeRule(
        target=Target.VLLM,
        layout=Format.COMPRESSED_TENSORS,
        field="in_features",
        multiple_of=Multiple.GROUP_SIZE,
        reason="every group must be full",
        versions=VLLM_VERSIONS,
        source=VLLM_COMPRESSED,
    ),
    *_marlin_tiles(Format.COMPRESSED_TENSORS),
    OptionRule(
        target=Target.TRANSFORMERS,
        layout=Format.COMPRESSED_TENSORS,
        field="sym",
        allowed=(True,),
        severity=Severity.SLOWER,
        reason="packed zeros load only with CompressedTensorsConfig(dequantize=True), into float matrices",
        versions="transformers 5.23.0, compressed-tensors 0.20.0",
        source="compressed_tensors/compressors/pack_quantized/base.py (on the meta device zeros stay unpacked)",
    ),
    LayoutRule(
        target=Target.GPTQMODEL,
        layout=Format.COMPRESSED_TENSORS,
        reason="it reads the GPTQ layout only",
        versions=GPTQMODEL_VERSIONS,
        source="gptqmodel/utils/model.py (tensor names qweight, qzeros, scales, g_idx)",
    ),
    *_gptqmodel_rules(Target.TRANSFORMERS, TRANSFORMERS_VERSIONS, TRANSFORMERS_GPTQ),
    *_gptqmodel_rules(Target.GPTQMODEL, GPTQMODEL_VERSIONS, GPTQMODEL_TORCH),
)

PART_RULES: tuple[LayoutRule, ...] = (
    LayoutRule(
        target=Target.TRANSFORMERS,
        layout=Format.GPTQ,
        field="lm_head",
        reason="its GPTQ loader keeps the head in float and leaves it at random values",
        versions=TRANSFORMERS_VERSIONS,
        source=TRANSFORMERS_GPTQ,
    ),
    LayoutRule(
        target=Target.TRANSFORMERS,
        layout=Format.GPTQ,
        field="embeddings",
        reason="its GPTQ loader keeps the embedding in float and leaves it at random values",
        versions=TRANSFORMERS_VERSIONS,
        source=TRANSFORMERS_GPTQ,
    ),
    LayoutRule(
        target=Target.VLLM,
        layout=Format.GPTQ,
        field="embeddings",
        reason="its GPTQ loader packs linears and the head only",
        versions=VLLM_VERSIONS,
        source=VLLM_CONFIG,
    ),
)
"""Parts of a model, by the option that quantizes them, that a target cannot load packed in a layout."""

FAMILY_RULES: tuple[FamilyRule, ...] = (
    FamilyRule(
        target=Target.TRANSFORMERS,
        model_type="gpt2",
        reason="it initializes c_proj.weight anew, which a quantized module does not have",
        versions=TRANSFORMERS_VERSIONS,
    ),
    FamilyRule(
        target=Target.GPTQMODEL,
        model_type="phi3",
        reason="it splits gate_up_proj, which the checkpoint and transformers keep whole",
        versions=GPTQMODEL_VERSIONS,
    ),
    FamilyRule(
        target=Target.GPTQMODEL,
        model_type="gpt_neox",
        reason="it leaves the head (embed_out) at random values without saying so",
        versions=GPTQMODEL_VERSIONS,
    ),
    *(
        FamilyRule(
            target=Target.TRANSFORMERS,
            model_type=model_type,
            reason="its GPTQ path leaves this family's experts at random values",
            versions=TRANSFORMERS_VERSIONS,
        )
        for model_type in ("deepseek_v2", "deepseek_v3", "glm4_moe", "mixtral", "olmoe", "phimoe", "qwen2_moe")
    ),
    *(
        FamilyRule(
            target=Target.GPTQMODEL,
            model_type=model_type,
            reason="it looks for the experts' linears under other names than the checkpoint's",
            versions=GPTQMODEL_VERSIONS,
        )
        for model_type in ("mixtral", "phimoe")
    ),
    FamilyRule(
        target=Target.GPTQMODEL,
        model_type="glm4_moe",
        reason="its module for the experts cannot call the family's router",
        versions=GPTQMODEL_VERSIONS,
    ),
    FamilyRule(
        target=Target.GPTQMODEL,
        model_type="qwen3_moe",
        reason="it leaves the dense feed-forward of blocks without experts at random values",
        versions=GPTQMODEL_VERSIONS,
        dense_blocks=True,
    ),
    FamilyRule(
        target=Target.TRANSFORMERS,
        layout=Format.COMPRESSED_TENSORS,
        model_type="phimoe",
        reason="it initializes the routers anew, by a name that they do not have",
        versions="transformers 5.23.0, compressed-tensors 0.20.0",
    ),
)
