"""Every tensor of a checkpoint of experts has its place in the split model, under the name that the checkpoint has."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.block_records import BlockRecords
from core.checkpoint.reader import CheckpointReader
from core.configs import GPTQConfig
from core.errors import ModelRefusedError
from core.model.experts import SplitExperts
from core.model.skeleton import Skeleton
from core.preflight.architectures import EXPERT_MODEL_TYPES
from core.preflight.source import inspect_source
from tests.core.tiny import EXPERT_FAMILIES, tiny_model, write_tiny_model


def test_every_known_family_is_built_here() -> None:
    """The table of families is the list of those that tests build."""
    assert set(EXPERT_FAMILIES) == EXPERT_MODEL_TYPES


@pytest.mark.parametrize("family", EXPERT_FAMILIES)
def test_no_tensor_is_left_over_and_none_is_renamed(family: str, tmp_path: Path) -> None:
    """Headers and modules agree on which linears there are, by the checkpoint's own names, experts and all."""
    source = write_tiny_model(tmp_path / "model", family)
    facts = inspect_source(source)
    with CheckpointReader(source) as reader:
        skeleton = Skeleton.open(source, reader)
        assert set(skeleton.names.source_of.values()) == set(reader.names())
        assert skeleton.names.unused == ()
        records = BlockRecords(skeleton=skeleton, config=GPTQConfig(group_size=16), source=reader)
        assert records.shapes() == facts.linears
    assert facts.experts == 4
    assert facts.fused_experts == 0
    assert any(isinstance(module, SplitExperts) for module in skeleton.model.modules())


def test_experts_that_are_stored_stacked_stay_whole(tmp_path: Path) -> None:
    """A checkpoint in transformers' own layout is loaded as it is; its experts are told apart in no file."""
    source = write_tiny_model(tmp_path / "model", "qwen3_moe")
    tiny_model("qwen3_moe").save_pretrained(source, save_original_format=False)
    facts = inspect_source(source)
    assert (facts.experts, facts.fused_experts) == (0, 4)
    with CheckpointReader(source) as reader:
        skeleton = Skeleton.open(source, reader)
        assert set(skeleton.names.source_of.values()) == set(reader.names())
        assert not any(isinstance(module, SplitExperts) for module in skeleton.model.modules())


def test_a_missing_expert_is_refused(tmp_path: Path) -> None:
    """One lost tensor of one expert is an incomplete checkpoint, and it is named."""
    source = write_tiny_model(tmp_path / "model", "mixtral")

    class Incomplete(CheckpointReader):
        def names(self) -> tuple[str, ...]:
            return tuple(
                name for name in super().names() if not name.endswith("layers.1.block_sparse_moe.experts.2.w3.weight")
            )

    with Incomplete(source) as reader, pytest.raises(ModelRefusedError, match=r"layers\.1\.mlp\.experts\.2\.up_proj"):
        Skeleton.open(source, reader)
