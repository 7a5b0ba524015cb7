"""A whole folder gives its facts; each broken one is refused for its own reason, with a remedy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core.errors import ModelProblem, ModelRefusedError
from core.preflight.source import inspect_source
from tests.core.preflight.folders import (
    HIDDEN,
    MLP,
    VOCABULARY,
    llama_tensors,
    make_llama,
    shard,
    write_config,
    write_index,
    write_safetensors,
)


def refusal(folder: Path) -> ModelRefusedError:
    with pytest.raises(ModelRefusedError) as caught:
        inspect_source(folder)
    assert caught.value.hint
    assert str(folder) not in str(caught.value), "a message never shows where the folder lies"
    return caught.value


def test_the_facts_of_a_whole_folder(tmp_path: Path):
    """Counts and shapes come from the headers, whatever is in the weights."""
    facts = inspect_source(make_llama(tmp_path))
    elements = sum(tensor.elements for tensor in facts.tensors.values())
    assert facts.architecture == "LlamaForCausalLM"
    assert facts.model_type == "llama"
    assert (facts.blocks, facts.block_prefix, facts.hidden_size) == (2, "model.layers.", HIDDEN)
    assert facts.parameters == elements
    assert facts.total_bytes == 2 * elements
    assert facts.dtype == "bfloat16"
    assert facts.tied_head
    assert facts.max_positions == 256
    assert len(facts.linears) == 14
    assert facts.linears["model.layers.1.mlp.down_proj"] == (HIDDEN, MLP)


def test_shards_give_the_same_facts(tmp_path: Path):
    """How the tensors are spread over files changes no count."""
    make_llama(tmp_path)
    single = inspect_source(tmp_path)
    shard(tmp_path)
    sharded = inspect_source(tmp_path)
    assert sharded.parameters == single.parameters
    assert dict(sharded.linears) == dict(single.linears)
    assert {tensor.file for tensor in sharded.tensors.values()} == {
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    }


def test_a_conv1d_family_is_given_as_out_in(tmp_path: Path):
    """GPT-2 stores [in, out]; the facts say (out, in) all the same."""
    make_llama(tmp_path)
    write_config(tmp_path, model_type="gpt2", architectures=["GPT2LMHeadModel"], num_hidden_layers=1)
    write_safetensors(
        tmp_path / "model.safetensors",
        {"wte.weight": ("F32", (VOCABULARY, HIDDEN)), "h.0.attn.c_attn.weight": ("F32", (HIDDEN, 3 * HIDDEN))},
    )
    assert inspect_source(tmp_path).linears == {"h.0.attn.c_attn": (3 * HIDDEN, HIDDEN)}


def test_the_width_is_found_where_the_config_is_silent(tmp_path: Path):
    """Without any known key the embedding tells the hidden size."""
    assert inspect_source(make_llama(tmp_path, hidden_size=None)).hidden_size == HIDDEN


def no_folder(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


def drop(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def put(name: str, content: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content)

    return write


def config(**changes: object) -> Callable[[Path], None]:
    return lambda folder: write_config(folder, **changes)


def tensors(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        changed: dict[str, Any] = llama_tensors()
        change(changed)
        write_safetensors(folder / "model.safetensors", changed)

    return write


def cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def lose_shard(folder: Path) -> None:
    shard(folder)
    (folder / "model-00002-of-00002.safetensors").unlink()


def index_names(file: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        write_index(folder, dict.fromkeys(shard(folder), file))

    return write


def lose_index_entry_target(folder: Path) -> None:
    weight_map = shard(folder)
    write_index(folder, weight_map | {"model.layers.9.x.weight": "model-00001-of-00002.safetensors"})


def index_without_map(folder: Path) -> None:
    shard(folder)
    write_index(folder, ["a"])


BROKEN: dict[str, tuple[Callable[[Path], None], ModelProblem]] = {
    "no folder": (no_folder, ModelProblem.NOT_FOUND),
    "no config": (drop("config.json"), ModelProblem.CONFIG_MISSING),
    "config is no JSON": (put("config.json", "{"), ModelProblem.CONFIG_INVALID),
    "config is a list": (put("config.json", "[]"), ModelProblem.CONFIG_INVALID),
    "config is huge": (put("config.json", " " * (16 * 2**20 + 1)), ModelProblem.CONFIG_INVALID),
    "config without model_type": (config(model_type=None), ModelProblem.CONFIG_INVALID),
    "architectures is a word": (config(architectures="LlamaForCausalLM"), ModelProblem.CONFIG_INVALID),
    "no tokenizer": (drop("tokenizer.json"), ModelProblem.TOKENIZER_MISSING),
    "no weights": (drop("model.safetensors"), ModelProblem.WEIGHTS_MISSING),
    "no tensor": (tensors(dict.clear), ModelProblem.WEIGHTS_MISSING),
    "truncated": (cut, ModelProblem.SAFETENSORS_CORRUPT),
    "missing shard": (lose_shard, ModelProblem.SHARD_MISSING),
    "index names a path": (index_names("../model.safetensors"), ModelProblem.SAFETENSORS_CORRUPT),
    "index names a pickle": (index_names("weights.dat"), ModelProblem.SAFETENSORS_CORRUPT),
    "index and shard disagree": (lose_index_entry_target, ModelProblem.SAFETENSORS_CORRUPT),
    "index without map": (index_without_map, ModelProblem.SAFETENSORS_CORRUPT),
    "a block is missing": (config(num_hidden_layers=3), ModelProblem.WEIGHTS_MISSING),
    "pickled weights": (put("pytorch_model.bin", "x"), ModelProblem.FORBIDDEN_FILE),
    "a pickle": (put("optimizer.pkl", "x"), ModelProblem.FORBIDDEN_FILE),
    "a checkpoint": (put("last.PT", "x"), ModelProblem.FORBIDDEN_FILE),
    "model code": (put("modeling_custom.py", "x"), ModelProblem.FORBIDDEN_FILE),
    "model code below": (put("original/model.py", "x"), ModelProblem.FORBIDDEN_FILE),
    "auto_map": (config(auto_map={"AutoModelForCausalLM": "modeling.Custom"}), ModelProblem.REMOTE_CODE),
    "auto_map of the tokenizer": (
        put("tokenizer_config.json", '{"auto_map": {"AutoTokenizer": ["tokenization.Custom", null]}}'),
        ModelProblem.REMOTE_CODE,
    ),
    "already quantized": (config(quantization_config={"quant_method": "awq"}), ModelProblem.ALREADY_QUANTIZED),
    "quantize_config.json": (put("quantize_config.json", "{}"), ModelProblem.ALREADY_QUANTIZED),
    "packed tensors": (
        tensors(lambda t: t.update({"model.layers.0.mlp.up_proj.qweight": ("I32", (8, 8))})),
        ModelProblem.ALREADY_QUANTIZED,
    ),
    "float8 weights": (
        tensors(lambda t: t.update({"model.layers.0.mlp.up_proj.weight": ("F8_E4M3", (MLP, HIDDEN))})),
        ModelProblem.ALREADY_QUANTIZED,
    ),
    "unknown architecture": (
        config(model_type="teapot", architectures=["TeapotForCausalLM"]),
        ModelProblem.UNSUPPORTED_ARCHITECTURE,
    ),
    "encoder only": (
        config(model_type="bert", architectures=["BertForMaskedLM"]),
        ModelProblem.UNSUPPORTED_ARCHITECTURE,
    ),
    "encoder with a decoder's class": (
        config(model_type="bert", architectures=["BertLMHeadModel"]),
        ModelProblem.UNSUPPORTED_ARCHITECTURE,
    ),
    "encoder-decoder": (
        config(model_type="t5", architectures=["T5ForConditionalGeneration"]),
        ModelProblem.UNSUPPORTED_ARCHITECTURE,
    ),
    "says that it is an encoder-decoder": (config(is_encoder_decoder=True), ModelProblem.UNSUPPORTED_ARCHITECTURE),
    "sees pictures": (
        config(model_type="gemma3", architectures=["Gemma3ForConditionalGeneration"]),
        ModelProblem.UNSUPPORTED_ARCHITECTURE,
    ),
    "a list of experts": (
        tensors(lambda t: t.update({"model.layers.0.mlp.experts.0.up_proj.weight": ("BF16", (MLP, HIDDEN))})),
        ModelProblem.UNSUPPORTED_ARCHITECTURE,
    ),
    "no blocks": (
        lambda folder: write_safetensors(folder / "model.safetensors", {"wte.weight": ("F32", (8, 8))}),
        ModelProblem.UNSUPPORTED_ARCHITECTURE,
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_folder_is_refused_for_its_own_reason(tmp_path: Path, name: str):
    """Each fault alone, on a folder that is whole otherwise, meets its own code."""
    folder = make_llama(tmp_path / "model")
    inspect_source(folder)
    harm, problem = BROKEN[name]
    harm(folder)
    assert refusal(folder).problem == problem


def test_an_adapter_is_told_to_be_merged(tmp_path: Path):
    """The commonest folder without weights gets the remedy that helps."""
    folder = make_llama(tmp_path / "model")
    drop("model.safetensors")(folder)
    put("adapter_config.json", "{}")(folder)
    assert "Merge" in refusal(folder).hint


def test_missing_shards_are_named(tmp_path: Path):
    """The message says which files to fetch."""
    folder = make_llama(tmp_path / "model")
    lose_shard(folder)
    assert "model-00002-of-00002.safetensors" in str(refusal(folder))


def test_a_config_nested_beyond_reason_is_an_answer_not_a_crash(tmp_path: Path):
    """JSON deep enough to exhaust the parser's recursion is refused as any other broken JSON."""
    folder = make_llama(tmp_path / "model")
    (folder / "config.json").write_text('{"a":' * 100_000)
    assert refusal(folder).problem == ModelProblem.CONFIG_INVALID


def test_silent_keys_are_allowed(tmp_path: Path):
    """What config.json need not say is not asked for."""
    facts = inspect_source(
        make_llama(
            tmp_path, num_hidden_layers=None, max_position_embeddings=None, tie_word_embeddings=None, architectures=None
        )
    )
    assert facts.blocks == 2
    assert facts.max_positions is None
    assert facts.tied_head
