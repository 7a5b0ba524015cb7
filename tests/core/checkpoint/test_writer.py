"""Artifact folders: whole or absent, equal for equal input, readable by the reference library."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from core.checkpoint.checksums import read_sha256sums, verify_sha256sums, write_sha256sums
from core.checkpoint.reader import CheckpointReader
from core.checkpoint.writer import ArtifactWriter
from core.errors import ArtifactInvalidError, InvalidConfigError

BLOCK = {"l.0.qweight": torch.arange(100, dtype=torch.int32).reshape(10, 10), "l.0.scales": torch.arange(7).half()}
NORM = torch.arange(5).bfloat16()
KEPT = {"embed": torch.randn(64, 8, generator=torch.Generator().manual_seed(0)).bfloat16()}


def write(out_dir: Path, sources: Path, **options: int) -> dict[str, str]:
    """Writes an artifact from a block file, a source checkpoint and a tensor in memory."""
    sources.mkdir(exist_ok=True)
    save_file(BLOCK, sources / "block.safetensors")
    save_file(KEPT, sources / "model.safetensors")
    with CheckpointReader(sources) as reader, ArtifactWriter(out_dir, **options) as writer:
        writer.add_entry(reader.entry("embed"))
        writer.add_file_tensors(sources / "block.safetensors")
        writer.add_tensor("norm", NORM)
        writer.add_text("config.json", '{"a": "ü"}\n')
        return writer.commit()


def contents(folder: Path) -> dict[str, bytes]:
    """Returns every file's bytes by name."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_the_reference_library_reads_what_was_added(tmp_path: Path):
    """One file, format metadata, every tensor with its bytes."""
    sums = write(tmp_path / "out", tmp_path / "src")
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    expected = {**BLOCK, **KEPT, "norm": NORM}
    assert tensors.keys() == expected.keys()
    assert all(torch.equal(tensors[name], tensor) for name, tensor in expected.items())
    with safe_open(tmp_path / "out" / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}
    assert sums == verify_sha256sums(tmp_path / "out")
    assert sorted(contents(tmp_path / "out")) == ["SHA256SUMS", "config.json", "model.safetensors"]


def test_shards_are_bounded_and_indexed(tmp_path: Path):
    """No shard holds more than the bound unless one tensor alone does; the index names each tensor's file."""
    write(tmp_path / "out", tmp_path / "src", max_shard_bytes=420)
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    shards = sorted((tmp_path / "out").glob("model-*.safetensors"))
    assert [shard.name for shard in shards] == [f"model-{n:05d}-of-00003.safetensors" for n in (1, 2, 3)]
    for shard in shards:
        tensors = load_file(shard)
        assert len(tensors) == 1 or sum(t.numel() * t.element_size() for t in tensors.values()) <= 420
        assert {name for name, file in index["weight_map"].items() if file == shard.name} == set(tensors)
    assert index["metadata"]["total_size"] == 64 * 8 * 2 + 400 + 14 + 10
    with CheckpointReader(tmp_path / "out") as reader:
        assert torch.equal(reader.tensor("embed"), KEPT["embed"])


@pytest.mark.parametrize("max_shard_bytes", [1 << 30, 500])
def test_the_same_input_gives_the_same_bytes(max_shard_bytes: int, tmp_path: Path):
    """Nothing of time, path or process is in the files."""
    write(tmp_path / "a", tmp_path / "src", max_shard_bytes=max_shard_bytes)
    write(tmp_path / "b", tmp_path / "other", max_shard_bytes=max_shard_bytes)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_without_commit_nothing_is_left(tmp_path: Path):
    """A failure inside leaves neither the folder nor its beginnings."""

    def write_and_fail() -> None:
        with ArtifactWriter(tmp_path / "out") as writer:
            writer.add_text("config.json", "{}")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        write_and_fail()
    assert list(tmp_path.iterdir()) == []


def test_a_taken_place_is_refused_before_the_work(tmp_path: Path):
    """An existing folder with files is never written into or over, unless asked."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("keep")
    with pytest.raises(InvalidConfigError, match="out_dir"):
        ArtifactWriter(tmp_path / "out")
    assert (tmp_path / "out" / "mine.txt").read_text() == "keep"


def test_an_empty_folder_is_taken_over(tmp_path: Path):
    """A folder that the caller made beforehand is no obstacle."""
    (tmp_path / "out").mkdir()
    write(tmp_path / "out", tmp_path / "src")
    verify_sha256sums(tmp_path / "out")


def test_a_failed_check_keeps_the_folder_from_appearing(tmp_path: Path):
    """The check sees the whole folder, sums included; what it raises leaves nothing in place."""

    def refuse(folder: Path) -> None:
        assert "config.json" in verify_sha256sums(folder)
        raise ArtifactInvalidError("config.json", "no good.")

    with ArtifactWriter(tmp_path / "out") as writer:
        writer.add_tensor("x", NORM)
        writer.add_text("config.json", "{}")
        with pytest.raises(ArtifactInvalidError, match="no good"):
            writer.commit(refuse)
    assert list(tmp_path.iterdir()) == []


def test_names_are_added_once(tmp_path: Path):
    """A tensor or file that comes twice is a mistake, and so is a name that is a path or a file of the writer's own."""
    with ArtifactWriter(tmp_path / "out") as writer:
        writer.add_tensor("x", NORM)
        with pytest.raises(ArtifactInvalidError, match="added twice"):
            writer.add_tensor("x", NORM)
        writer.add_text("a.json", "")
        for name in ("a.json", "../b.json", "SHA256SUMS", "model.safetensors"):
            with pytest.raises(ArtifactInvalidError, match="not a new plain file name"):
                writer.add_text(name, "")


def test_a_torn_block_file_is_refused(tmp_path: Path):
    """A block file that is cut is named."""
    (tmp_path / "block.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{")
    with ArtifactWriter(tmp_path / "out") as writer, pytest.raises(ArtifactInvalidError, match="block"):
        writer.add_file_tensors(tmp_path / "block.safetensors")


def test_copies_follow_links(tmp_path: Path):
    """A tokenizer file that is a link in a cache becomes a plain file."""
    (tmp_path / "blob").write_text("tokens")
    (tmp_path / "tokenizer.json").symlink_to(tmp_path / "blob")
    with ArtifactWriter(tmp_path / "out") as writer:
        writer.add_tensor("x", NORM)
        writer.copy_file(tmp_path / "tokenizer.json")
        writer.commit()
    copied = tmp_path / "out" / "tokenizer.json"
    assert copied.read_text() == "tokens"
    assert not copied.is_symlink()


KILLED_COMMIT = """
import os, signal, sys
from pathlib import Path
import core.checkpoint.writer as writer_module
from tests.core.checkpoint.test_writer import write

def kill(*args):
    os.kill(os.getpid(), signal.SIGKILL)

setattr(writer_module, sys.argv[2], kill)
write(Path(sys.argv[1]) / "out", Path(sys.argv[1]) / "src")
"""


@pytest.mark.parametrize("killed_in", ["_shard_stream", "write_sha256sums", "sync_folder"])
def test_a_killed_commit_leaves_no_artifact(killed_in: str, tmp_path: Path):
    """Kill -9 while shards, sums or syncs are under way: out_dir is absent, and the next writer clears the rest."""
    killed = subprocess.run([sys.executable, "-c", KILLED_COMMIT, str(tmp_path), killed_in], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "out").exists()
    write(tmp_path / "out", tmp_path / "src")
    verify_sha256sums(tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "src"]


def test_sums_are_those_of_the_usual_tool(tmp_path: Path):
    """`sha256sum -c` accepts the file."""
    write(tmp_path / "out", tmp_path / "src")
    subprocess.run(["sha256sum", "--strict", "--quiet", "-c", "SHA256SUMS"], cwd=tmp_path / "out", check=True)


@pytest.mark.parametrize("damage", ["changed", "absent", "unlisted"])
def test_a_damaged_folder_is_told_by_file(damage: str, tmp_path: Path):
    """Verification names the file that is changed, absent or not listed."""
    out = tmp_path / "out"
    write(out, tmp_path / "src")
    match damage:
        case "changed":
            (out / "config.json").write_text("{}")
        case "absent":
            (out / "config.json").unlink()
        case _:
            (out / "extra.json").write_text("{}")
    with pytest.raises(ArtifactInvalidError) as caught:
        verify_sha256sums(out)
    assert caught.value.file == ("extra.json" if damage == "unlisted" else "config.json")


@pytest.mark.parametrize("text", ["nonsense\n", f"{'0' * 64}  ../x\n", f"{'0' * 64}  x\n{'1' * 64}  x\n"])
def test_a_malformed_list_is_refused(text: str, tmp_path: Path):
    """Lines that are no hash and file name, that lead elsewhere, or that come twice."""
    (tmp_path / "SHA256SUMS").write_text(text)
    with pytest.raises(ArtifactInvalidError, match="SHA256SUMS"):
        read_sha256sums(tmp_path)


def test_sums_can_be_written_anew(tmp_path: Path):
    """Writing again over a changed folder makes it verify again; the list never lists itself."""
    (tmp_path / "a.txt").write_text("a")
    write_sha256sums(tmp_path)
    (tmp_path / "b.txt").write_text("b")
    write_sha256sums(tmp_path)
    assert list(verify_sha256sums(tmp_path)) == ["a.txt", "b.txt"]
