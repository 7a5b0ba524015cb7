"""The work folder's record: what survives a resume, a torn file, and a killed process."""

from __future__ import annotations

import dataclasses
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from core.checkpoint.manifest import FAULT_POINTS, Manifest
from core.checkpoint.record import Fingerprint
from core.errors import ResumeRefusedError

FINGERPRINT = Fingerprint(
    model_sha256="m" * 64,
    calibration_sha256="c" * 64,
    config='{"bits":4}',
    engine_version="0.1.0",
    numerics="torch 2.13.0 cpu AVX512 float32",
)
BLOCKS = 3


def block_tensors(index: int) -> dict[str, torch.Tensor]:
    """Returns the tensors of a made-up block, a formula of its index."""
    return {
        f"layers.{index}.qweight": torch.arange(64, dtype=torch.int32) * (index + 1),
        f"layers.{index}.n": torch.ones(3).half(),
    }


def rows(index: int) -> list[dict[str, object]]:
    """Returns made-up lines of the report."""
    return [{"block": index, "linear": "up_proj", "loss": 0.5 * index}]


def record_all(work_dir: Path) -> Manifest:
    """Runs a whole made-up run, resuming where the folder stands."""
    manifest = Manifest.open(work_dir, FINGERPRINT)
    for index in range(manifest.blocks_done, BLOCKS):
        manifest.record_block(index, block_tensors(index), rows(index))
    return manifest


def files(folder: Path) -> dict[str, bytes]:
    """Returns every file's bytes by name."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_a_resumed_run_finds_everything(tmp_path: Path):
    """Blocks, their tensors, hashes and report rows are there after a reopen."""
    first = record_all(tmp_path)
    again = Manifest.open(tmp_path, FINGERPRINT)
    assert again.blocks_done == BLOCKS
    for index in range(BLOCKS):
        assert again.block_rows(index) == rows(index)
        assert again.block_sha256(index) == first.block_sha256(index)
        found = again.block_tensors(index)
        assert found.keys() == block_tensors(index).keys()
        assert all(torch.equal(found[name], tensor) for name, tensor in block_tensors(index).items())


def test_the_same_run_writes_the_same_bytes(tmp_path: Path):
    """Two runs, one of them interrupted and with tensors in another order, leave equal folders."""
    record_all(tmp_path / "a")
    manifest = Manifest.open(tmp_path / "b", FINGERPRINT)
    manifest.record_block(0, dict(reversed(block_tensors(0).items())), rows(0))
    record_all(tmp_path / "b")
    assert files(tmp_path / "a") == files(tmp_path / "b")


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Fingerprint)])
def test_another_fingerprint_is_refused_by_name(field: str, tmp_path: Path):
    """A run under other settings never mixes with what is there, and nothing is changed."""
    record_all(tmp_path)
    before = files(tmp_path)
    with pytest.raises(ResumeRefusedError) as caught:
        Manifest.open(tmp_path, dataclasses.replace(FINGERPRINT, **{field: "other"}))
    assert (caught.value.field, caught.value.found) == (field, "other")
    assert files(tmp_path) == before


@pytest.mark.parametrize("damage", ["absent", "torn", "flipped"])
@pytest.mark.parametrize("damaged", range(BLOCKS))
def test_the_unbroken_prefix_is_kept(damaged: int, damage: str, tmp_path: Path):
    """A block whose file is not what was recorded is dropped with all behind it, and can be recorded again."""
    manifest = record_all(tmp_path)
    whole = files(tmp_path)
    path = manifest.block_file(damaged)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    match damage:
        case "absent":
            path.unlink()
        case "torn":
            path.write_bytes(data[:-7])
        case _:
            path.write_bytes(data)
    assert Manifest.open(tmp_path, FINGERPRINT).blocks_done == damaged
    record_all(tmp_path)
    assert files(tmp_path) == whole


@pytest.mark.parametrize("text", ["", "{}", '{"version": 1}', "[1]", '{"version": 1, "fingerprint": {"x": "y"}}'])
def test_an_unreadable_record_is_refused(text: str, tmp_path: Path):
    """The record is written whole, so a broken one is a fault to show, not to paper over."""
    record_all(tmp_path)
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(ResumeRefusedError, match=r"manifest\.json"):
        Manifest.open(tmp_path, FINGERPRINT)


def test_a_record_of_another_version_is_refused(tmp_path: Path):
    """A later release's folder is not guessed at."""
    record_all(tmp_path)
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "version": 2}))
    with pytest.raises(ResumeRefusedError, match="manifest version"):
        Manifest.open(tmp_path, FINGERPRINT)


def test_blocks_are_recorded_in_order(tmp_path: Path):
    """A gap is a mistake of the caller."""
    manifest = Manifest.open(tmp_path, FINGERPRINT)
    with pytest.raises(ValueError, match="in order"):
        manifest.record_block(1, block_tensors(1), [])


def test_rows_that_are_no_json_leave_the_block_unrecorded(tmp_path: Path):
    """A NaN in the report is refused before the record is touched."""
    manifest = Manifest.open(tmp_path, FINGERPRINT)
    with pytest.raises(ValueError, match="JSON"):
        manifest.record_block(0, block_tensors(0), [{"loss": float("nan")}])
    assert Manifest.open(tmp_path, FINGERPRINT).blocks_done == 0


def test_activations_of_the_newest_two_blocks_are_kept(tmp_path: Path):
    """Older ones leave the disk; a reopened folder gives back what was saved."""
    manifest = Manifest.open(tmp_path, FINGERPRINT)
    for index in range(4):
        manifest.save_activations(index, {"hidden": torch.full((2, 3), float(index)).bfloat16()})
    again = Manifest.open(tmp_path, FINGERPRINT)
    assert [again.load_activations(index) is not None for index in range(5)] == [False, False, True, True, False]
    kept = again.load_activations(3)
    assert kept is not None
    assert torch.equal(kept["hidden"], torch.full((2, 3), 3.0).bfloat16())
    assert sorted(path.name for path in tmp_path.glob("activations-*")) == [
        "activations-00002.safetensors",
        "activations-00003.safetensors",
    ]


def test_damaged_activations_count_as_absent(tmp_path: Path):
    """They save work, nothing more: the caller computes them again."""
    manifest = Manifest.open(tmp_path, FINGERPRINT)
    manifest.save_activations(0, {"hidden": torch.ones(4)})
    path = tmp_path / "activations-00000.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    assert Manifest.open(tmp_path, FINGERPRINT).load_activations(0) is None


KILLED_RUN = """
import os, signal, sys
from pathlib import Path
from core.checkpoint.manifest import Manifest
from tests.core.checkpoint.test_manifest import BLOCKS, FINGERPRINT, block_tensors, rows

work_dir, point, at_block = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
current = 0

def on_fault(name):
    if name == point and current == at_block:
        os.kill(os.getpid(), signal.SIGKILL)

manifest = Manifest.open(work_dir, FINGERPRINT, on_fault=on_fault)
for current in range(BLOCKS):
    manifest.record_block(current, block_tensors(current), rows(current))
"""


@pytest.mark.parametrize("at_block", [0, 1])
@pytest.mark.parametrize("point", FAULT_POINTS)
def test_a_run_killed_at_any_point_resumes_to_the_same_bytes(point: str, at_block: int, tmp_path: Path):
    """Kill -9 before the rename, before the record and after it: at most the block under way is lost, and no more."""
    killed = subprocess.run(
        [sys.executable, "-c", KILLED_RUN, str(tmp_path / "killed"), point, str(at_block)], check=False
    )
    assert killed.returncode == -signal.SIGKILL
    resumed = Manifest.open(tmp_path / "killed", FINGERPRINT)
    assert resumed.blocks_done == at_block + (point == "block_recorded")
    record_all(tmp_path / "killed")
    record_all(tmp_path / "undisturbed")
    assert files(tmp_path / "killed") == files(tmp_path / "undisturbed")
