"""Reads a model folder's config.json and refuses what is no plain, unquantized text decoder. Standard library only."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from core.errors import ModelProblem, ModelRefusedError
from core.preflight.architectures import (
    DECODER_MODEL_TYPES,
    ENCODER_DECODER_MODEL_TYPES,
    ENCODER_MODEL_TYPES,
    TRANSFORMERS_VERSION,
)

if TYPE_CHECKING:
    from pathlib import Path

CONFIG_FILE = "config.json"
MAX_CONFIG_BYTES = 16 * 2**20

# Files beside config.json that transformers reads and that may name code to be run.
CODE_NAMING_FILES = (CONFIG_FILE, "tokenizer_config.json", "processor_config.json", "preprocessor_config.json")
CODE_NAMING_KEYS = ("auto_map", "custom_pipelines")

# One fact has several names in transformers' families.
HIDDEN_SIZE_KEYS = ("hidden_size", "n_embd", "n_embed", "d_model", "dim")
BLOCKS_KEYS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
POSITIONS_KEYS = ("max_position_embeddings", "n_positions", "max_seq_len")

DECODER_CLASS_ENDINGS = ("ForCausalLM", "LMHeadModel")


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigFacts:
    """What config.json says. None where it is silent. tied_head: None where the family's default decides."""

    architecture: str
    model_type: str
    hidden_size: int | None
    blocks: int | None
    max_positions: int | None
    tied_head: bool | None


def read_config(source_dir: Path) -> ConfigFacts:
    """Returns the facts of config.json; raises ModelRefusedError where it is missing, broken or not for us."""
    config = read_json_object(source_dir / CONFIG_FILE)
    refuse_code(source_dir)
    _refuse_quantized(source_dir, config)
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or not model_type:
        raise ModelRefusedError(ModelProblem.CONFIG_INVALID, "config.json names no model_type.", "Add its model_type.")
    architecture = _architecture(config)
    _refuse_other_architectures(config, model_type, architecture)
    return ConfigFacts(
        architecture=architecture,
        model_type=model_type,
        hidden_size=_count(config, HIDDEN_SIZE_KEYS),
        blocks=_count(config, BLOCKS_KEYS),
        max_positions=_count(config, POSITIONS_KEYS),
        tied_head=config["tie_word_embeddings"] if isinstance(config.get("tie_word_embeddings"), bool) else None,
    )


def read_json_object(path: Path) -> dict[str, Any]:
    """Returns a JSON file of the folder; raises ModelRefusedError (CONFIG_MISSING, CONFIG_INVALID)."""
    if not path.is_file():
        raise ModelRefusedError(
            ModelProblem.CONFIG_MISSING,
            f"The model folder has no {path.name}.",
            "Give the folder that holds config.json, the tokenizer and the safetensors files.",
        )
    if path.stat().st_size > MAX_CONFIG_BYTES:
        _invalid(path, f"it is larger than {MAX_CONFIG_BYTES:,} bytes")
    try:
        values = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise _invalid_error(path, f"it is not JSON ({error})") from error
    if not isinstance(values, dict):
        _invalid(path, "it is not a JSON object")
    return values


def _architecture(config: dict[str, Any]) -> str:
    match config.get("architectures"):
        case [str(name), *_]:
            return name
        case None | []:
            return ""
    raise ModelRefusedError(
        ModelProblem.CONFIG_INVALID, "architectures in config.json is not a list of names.", "Correct config.json."
    )


def refuse_code(source_dir: Path) -> None:
    """Raises ModelRefusedError (REMOTE_CODE) where a config file names Python code that a loader would run."""
    for name in CODE_NAMING_FILES:
        path = source_dir / name
        named = [key for key in CODE_NAMING_KEYS if path.is_file() and read_json_object(path).get(key)]
        if named:
            raise ModelRefusedError(
                ModelProblem.REMOTE_CODE,
                f"{name} has {named[0]}: the model asks for its own Python code to be run.",
                "Use a model that transformers supports itself; model code is never run.",
            )


def _refuse_quantized(source_dir: Path, config: dict[str, Any]) -> None:
    for sign in ("quantization_config", "compression_config"):
        if config.get(sign):
            raise already_quantized(f"config.json has {sign}")
    if (source_dir / "quantize_config.json").exists():
        raise already_quantized("the folder has quantize_config.json")


def already_quantized(sign: str) -> ModelRefusedError:
    """Returns the refusal of a model that is quantized, with the sign by which it is known."""
    return ModelRefusedError(
        ModelProblem.ALREADY_QUANTIZED,
        f"The model is quantized already: {sign}.",
        "Give the original float model.",
    )


def _refuse_other_architectures(config: dict[str, Any], model_type: str, architecture: str) -> None:
    if config.get("is_encoder_decoder") is True or model_type in ENCODER_DECODER_MODEL_TYPES:
        _unsupported(model_type, architecture, "it is an encoder-decoder")
    if model_type in ENCODER_MODEL_TYPES:
        _unsupported(model_type, architecture, "it is an encoder-only model")
    if architecture and not architecture.endswith(DECODER_CLASS_ENDINGS):
        _unsupported(model_type, architecture, "it is not a causal language model")
    if model_type not in DECODER_MODEL_TYPES:
        _unsupported(model_type, architecture, f"transformers {TRANSFORMERS_VERSION} has no text decoder of that name")


def _unsupported(model_type: str, architecture: str, reason: str) -> NoReturn:
    raise ModelRefusedError(
        ModelProblem.UNSUPPORTED_ARCHITECTURE,
        f"model_type {model_type!r} ({architecture or 'no architecture named'}) is not supported: {reason}.",
        "Give a decoder-only text model, such as a Llama, Mistral, Qwen, Gemma, Phi, OPT, BLOOM or GPT model.",
    )


def _count(config: dict[str, Any], keys: tuple[str, ...]) -> int | None:
    for key in keys:
        value = config.get(key)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return None


def _invalid_error(path: Path, reason: str) -> ModelRefusedError:
    return ModelRefusedError(
        ModelProblem.CONFIG_INVALID, f"{path.name} cannot be read: {reason}.", "Correct or download the file again."
    )


def _invalid(path: Path, reason: str) -> NoReturn:
    raise _invalid_error(path, reason)
