"""Which files of a model folder count: the safetensors shards, the tokenizer, and what must not be there.

It opens no weight and runs nothing. Standard library only.
"""

from __future__ import annotations

import os
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NoReturn

from core.errors import ModelProblem, ModelRefusedError
from core.preflight.model_config import read_json_object
from core.preflight.safetensors_header import TensorFacts, read_header

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"

# Files that are code, or that run code when they are unpickled.
FORBIDDEN_SUFFIXES = frozenset({".py", ".pyc", ".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib"})

# What the engine reads, and what carries a model's terms, wherever a model comes from.
WANTED_FILES = (
    "*.safetensors",
    "*.safetensors.index.json",
    "config.json",
    "generation_config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab*",
    "merges.txt",
    "*.model",
    "*.tiktoken",
    "chat_template*",
    "LICENSE*",
)
# A folder holds one checkpoint; what lies deeper (onnx, original, gguf) is another form of the same weights.
UNWANTED_FILES = ("*/*", "*.py", "*.bin", "*.pt", "*.pth", "*.pkl")

# One of these sets makes a tokenizer.
TOKENIZER_FILES = (
    ("tokenizer.json",),
    ("tokenizer.model",),
    ("spiece.model",),
    ("sentencepiece.bpe.model",),
    ("vocab.json", "merges.txt"),
)


def is_wanted(name: str) -> bool:
    """Whether a model's file of that name is taken along."""
    return any(fnmatchcase(name, pattern) for pattern in WANTED_FILES) and not any(
        fnmatchcase(name, pattern) for pattern in UNWANTED_FILES
    )


def check_folder(source_dir: Path) -> None:
    """Raises ModelRefusedError where the folder does not exist or holds a forbidden file, at any depth."""
    if not source_dir.is_dir():
        raise ModelRefusedError(
            ModelProblem.NOT_FOUND, f"There is no model folder {source_dir.name!r}.", "Check the path or the name."
        )
    for folder, _, names in os.walk(source_dir):
        for name in names:
            if Path(name).suffix.lower() in FORBIDDEN_SUFFIXES:
                raise ModelRefusedError(
                    ModelProblem.FORBIDDEN_FILE,
                    f"The model folder holds {(Path(folder) / name).relative_to(source_dir)}: code and pickled weights "
                    "are refused.",
                    "Give a folder with safetensors files only.",
                )


def check_tokenizer(source_dir: Path) -> None:
    """Raises ModelRefusedError (TOKENIZER_MISSING) where no complete set of tokenizer files is there."""
    if any(all((source_dir / name).is_file() for name in names) for names in TOKENIZER_FILES):
        return
    raise ModelRefusedError(
        ModelProblem.TOKENIZER_MISSING,
        "The model folder has no tokenizer.",
        "Add tokenizer.json (or tokenizer.model, or vocab.json with merges.txt) from the original model.",
    )


def read_tensors(source_dir: Path) -> dict[str, TensorFacts]:
    """Returns every stored tensor by name, from one file or from the shards of an index.

    Raises ModelRefusedError: WEIGHTS_MISSING without weights, SHARD_MISSING where a shard of the index is not there,
    SAFETENSORS_CORRUPT where a file or the index is wrong, or where both disagree.
    """
    if (source_dir / SINGLE_FILE).is_file():
        tensors = read_header(source_dir / SINGLE_FILE)
    elif (source_dir / INDEX_FILE).is_file():
        tensors = _read_shards(source_dir, _weight_map(source_dir))
    else:
        _weights_missing(source_dir)
    if not tensors:
        raise ModelRefusedError(
            ModelProblem.WEIGHTS_MISSING, "The safetensors files hold no tensor.", "Download the model again."
        )
    return tensors


def _weight_map(source_dir: Path) -> dict[str, str]:
    weight_map = read_json_object(source_dir / INDEX_FILE).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(file, str) for file in weight_map.values()):
        _corrupt("the index has no weight_map from tensor names to file names.")
    for file in weight_map.values():
        if Path(file).name != file or not file.endswith(".safetensors"):
            _corrupt(f"the index names {file!r}, which is not a safetensors file of this folder.")
    return weight_map


def _read_shards(source_dir: Path, weight_map: dict[str, str]) -> dict[str, TensorFacts]:
    shards = sorted(set(weight_map.values()))
    missing = [file for file in shards if not (source_dir / file).is_file()]
    if missing:
        raise ModelRefusedError(
            ModelProblem.SHARD_MISSING,
            f"{len(missing)} of {len(shards)} shards are missing: {', '.join(missing[:3])}.",
            "Download the missing files.",
        )
    stored = {file: read_header(source_dir / file) for file in shards}
    for name, file in weight_map.items():
        if name not in stored[file]:
            _corrupt(f"the index says that {name} is in {file}, where it is not.")
    # Tensors that the index does not list are not loaded by anybody, and not counted here.
    return {name: stored[file][name] for name, file in weight_map.items()}


def _weights_missing(source_dir: Path) -> NoReturn:
    adapter = (source_dir / "adapter_config.json").is_file()
    raise ModelRefusedError(
        ModelProblem.WEIGHTS_MISSING,
        f"The model folder has neither {SINGLE_FILE} nor {INDEX_FILE}.",
        "Merge the adapter into its base model first." if adapter else "Give a model that is saved as safetensors.",
    )


def _corrupt(detail: str) -> NoReturn:
    raise ModelRefusedError(
        ModelProblem.SAFETENSORS_CORRUPT, f"{INDEX_FILE}: {detail}", "Download the index and the shards again."
    )
