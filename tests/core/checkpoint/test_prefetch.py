"""Reading ahead: the same tensors, errors where they are asked for, never more than was announced."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from core.checkpoint.prefetch import ReadAhead
from core.checkpoint.reader import CheckpointReader
from core.errors import ModelProblem, ModelRefusedError

TENSORS = {f"t{number}": torch.randn(8, 4, generator=torch.Generator().manual_seed(number)) for number in range(6)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_file({name: tensor.bfloat16() for name, tensor in TENSORS.items()}, tmp_path / "model.safetensors")
    return tmp_path


class Watched(CheckpointReader):
    """A reader that notes what is read, and by which thread."""

    def __init__(self, source_dir: Path) -> None:
        super().__init__(source_dir)
        self.read: list[tuple[str, str]] = []
        self.begun = threading.Event()
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def tensor(self, name: str) -> torch.Tensor:
        self.begun.set()
        self.may_go_on.wait()
        self.read.append((name, threading.current_thread().name))
        return super().tensor(name)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_hands_out_what_the_checkpoint_holds(folder: Path, dtype: torch.dtype):
    """Announced or not, a tensor is the stored one in the dtype asked for, and is read once."""
    source = Watched(folder)
    with ReadAhead(source, dtype) as ahead:
        ahead.announce(["t0", "t1"])
        for name in ("t2", "t1", "t0"):
            assert torch.equal(ahead.tensor(name), TENSORS[name].bfloat16().to(dtype))
        ahead.announce(["t3"])
        assert ahead.tensor("t3").dtype == dtype
    assert sorted(name for name, _ in source.read) == ["t0", "t1", "t2", "t3"]
    assert {name for name, thread in source.read if thread.startswith("bitmill-read-ahead")} == {"t0", "t1", "t3"}
    assert ahead.names() == tuple(TENSORS)


def test_what_goes_wrong_is_raised_where_the_tensor_is_asked_for(folder: Path):
    """A file that was cut is the same refusal as without reading ahead."""
    path = folder / "model.safetensors"
    with ReadAhead(CheckpointReader(folder), torch.float32) as ahead:
        path.write_bytes(path.read_bytes()[:-300])
        ahead.announce(TENSORS)
        with pytest.raises(ModelRefusedError) as caught:
            ahead.tensor("t0")
    assert caught.value.problem is ModelProblem.SAFETENSORS_CORRUPT


def test_the_end_of_a_run_ends_the_reading(folder: Path):
    """Nothing behind the tensor under way is read once the run is over, and no thread stays."""
    source = Watched(folder)
    source.may_go_on.clear()

    ahead = ReadAhead(source, torch.float32)

    def leave() -> None:
        with ahead:
            ahead.announce(TENSORS)
            source.begun.wait()

    leaving = threading.Thread(target=leave)
    leaving.start()
    ahead._stopped.wait()  # the reader is held at its first tensor until the end was asked for
    source.may_go_on.set()
    leaving.join()
    assert len(source.read) == 1
    assert not any(thread.name.startswith("bitmill-read-ahead") for thread in threading.enumerate())
