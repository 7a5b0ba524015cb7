"""Models in archives: the same files come out however they are packed, and each trick is refused by name."""

from __future__ import annotations

import io
import stat
import struct
import tarfile
import zipfile
from pathlib import Path

import pytest

from core.errors import ModelProblem, ModelRefusedError
from core.preflight.archive import MEMBERS_MAX, ModelArchive
from core.preflight.archive_members import DIRECTORY_MAX_BYTES, EXTENSION_MAX_BYTES
from core.preflight.outline import write_outline
from core.preflight.source import inspect_source
from tests.core.preflight.archives import FORMS, folder_files, of_type, pack, tar_of, zip_of
from tests.core.preflight.folders import make_llama, shard

MAX_BYTES = 1 << 30
CONFIG = ("config.json", b"{}", None)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sharded model, so that it has an index."""
    model = make_llama(tmp_path / "tiny")
    shard(model)
    return model


def read(content: bytes, max_bytes: int = MAX_BYTES) -> dict[str, bytes]:
    """Returns the model's files, read twice."""
    with ModelArchive(io.BytesIO(content), max_bytes=max_bytes) as archive:
        first = {file.name: b"".join(pieces) for file, pieces in archive.read()}
        assert {file.name: b"".join(pieces) for file, pieces in archive.read()} == first
        assert {file.name: file.size_bytes for file in archive.files} == {
            name: len(data) for name, data in first.items()
        }
        assert archive.total_bytes == sum(map(len, first.values()))
    return first


def refused(content: bytes, max_bytes: int = MAX_BYTES) -> ModelRefusedError:
    """Returns what an archive is refused with."""
    with pytest.raises(ModelRefusedError) as error:
        read(content, max_bytes)
    assert error.value.hint
    return error.value


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("top", ["", "./", "tiny/", "./tiny/"])
def test_the_model_comes_out_as_it_went_in(folder: Path, form: str, top: str):
    """From the top or from one common folder, beside what is no part of it."""
    files = folder_files(folder)
    beside = {"README.md": b"#", "onnx/model.onnx": b"x", ".cache/a.json": b"{}", "._config.json": b"mac"}
    packed = {f"{top}{name}": content for name, content in {**beside, **files}.items()}
    assert read(pack(packed, form, folders=(f"{top}onnx",))) == files


@pytest.mark.parametrize("form", FORMS)
def test_a_file_is_passed_over_unread(folder: Path, form: str):
    """Who has seen enough of one goes on to the next."""
    with ModelArchive(io.BytesIO(pack(folder_files(folder), form)), max_bytes=MAX_BYTES) as archive:
        names = [file.name for file, _ in archive.read()]
        parts = {file.name: next(pieces) for file, pieces in archive.read()}
    assert names == list(folder_files(folder)) == list(parts)


@pytest.mark.parametrize("form", FORMS)
def test_what_is_cut_off_is_refused(folder: Path, form: str):
    """At every tenth of its length, and where only the end mark or checksum is missing."""
    whole = pack(folder_files(folder), form)
    end = len(whole.rstrip(b"\0")) if form == "tar" else len(whole)
    for length in [*range(0, end, max(end // 10, 1)), end - 1]:
        error = refused(whole[:length])
        assert error.problem is ModelProblem.ARCHIVE_INVALID, (length, error)


def test_a_tar_without_its_end_mark_is_refused(folder: Path):
    """Though no byte of a member is missing: more members may be."""
    whole = pack(folder_files(folder))
    body = len(whole.rstrip(b"\0"))
    assert "end mark" in str(refused(whole[: -(-body // 512) * 512]))


@pytest.mark.parametrize("form", FORMS)
def test_flipped_bytes_are_refused_or_seen(folder: Path, form: str):
    """A packed archive carries checksums; a header of a plain tar has one."""
    whole = bytearray(pack(folder_files(folder), form))
    whole[len(whole) // 2 if form != "tar" else 100] ^= 0xFF
    assert refused(bytes(whole)).problem is ModelProblem.ARCHIVE_INVALID


@pytest.mark.parametrize("content", [b"", b"no archive", b"\0" * 100, b"\x1f\x8b\x08", b"BZh9", b"PK\3\4", b"PK\5\6"])
def test_what_is_no_archive_is_refused(content: bytes):
    assert refused(content).problem is ModelProblem.ARCHIVE_INVALID


@pytest.mark.parametrize("start", [b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"7z\xbc\xaf\x27\x1c", b"Rar!\x1a\7"])
def test_other_packings_are_named(start: bytes):
    assert "not taken" in str(refused(start + bytes(100)))


@pytest.mark.parametrize(
    "name",
    ["/etc/config.json", "../config.json", "a/../../b.json", "C:\\a.json", "a\\b.json", "C:a", "a\tb", "x" * 300],
)
@pytest.mark.parametrize("form", FORMS)
def test_names_that_lead_somewhere_are_refused(name: str, form: str):
    """Whether or not the engine would read such a file."""
    error = refused(pack({"config.json": b"{}", name: b""}, form))
    assert error.problem is ModelProblem.ARCHIVE_UNSAFE
    assert name[:20] in error.detail.replace("\\\\", "\\").replace("\\t", "\t")


@pytest.mark.parametrize(
    "kind",
    [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.GNUTYPE_SPARSE],
)
def test_links_and_devices_in_a_tar_are_refused(kind: bytes):
    error = refused(tar_of([CONFIG, ("model.safetensors", b"", of_type(kind, "/etc/shadow"))]))
    assert error.problem in {ModelProblem.ARCHIVE_UNSAFE, ModelProblem.ARCHIVE_INVALID}
    assert kind == tarfile.GNUTYPE_SPARSE or "model.safetensors" in error.detail


def test_links_in_a_zip_are_refused():
    error = refused(zip_of([("config.json", b"/etc/passwd")], mode=stat.S_IFLNK | 0o777))
    assert error.problem is ModelProblem.ARCHIVE_UNSAFE
    assert "config.json" in error.detail


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["modeling.py", "a/b/weights.BIN", ".git/x.pkl"])
def test_code_and_pickles_are_refused_wherever_they_lie(form: str, name: str):
    error = refused(pack({"config.json": b"{}", name: b"x"}, form))
    assert error.problem is ModelProblem.FORBIDDEN_FILE
    assert name in error.detail


def test_two_members_of_one_name_are_refused():
    """Also where they are spelt differently: which one is meant?"""
    for name in ("config.json", "./config.json"):
        error = refused(tar_of([CONFIG, (name, b"[]", None)]))
        assert error.problem is ModelProblem.ARCHIVE_UNSAFE
        assert "config.json" in error.detail


def test_the_model_must_be_where_it_can_be_found():
    assert refused(pack({"a/config.json": b"{}", "b/config.json": b"{}"})).problem is ModelProblem.ARCHIVE_INVALID
    for files in ({"x.json": b"{}"}, {"README": b"", "a/config.json": b"{}"}, {"a/b/config.json": b"{}"}, {}):
        assert refused(pack(files)).problem is ModelProblem.CONFIG_MISSING


@pytest.mark.parametrize("form", FORMS)
def test_more_than_is_taken_is_refused_by_what_is_announced(form: str):
    """Members that are no part of the model count as well: they have to be unpacked, too."""
    content = pack({"config.json": b"{}", "README.md": b"x" * 2000}, form)
    error = refused(content, 2001)
    assert error.problem is ModelProblem.ARCHIVE_TOO_LARGE
    assert "README.md" in error.detail
    assert read(content, 2002) == {"config.json": b"{}"}


@pytest.mark.parametrize("form", ["tar.gz", "tar.bz2", "zip"])
def test_a_bomb_is_refused(form: str):
    """Zeros shrink by a thousand, weights do not."""
    error = refused(pack({"config.json": b"{}", "model.safetensors": bytes(24 << 20)}, form))
    assert error.problem is ModelProblem.ARCHIVE_UNSAFE
    assert "model.safetensors" in error.detail


def test_too_many_members_are_refused():
    members = [(f"{number}", b"", None) for number in range(MEMBERS_MAX)]
    assert read(tar_of([CONFIG, *members[1:]])) == {"config.json": b"{}"}
    assert refused(tar_of([CONFIG, *members])).problem is ModelProblem.ARCHIVE_UNSAFE


def test_a_header_that_would_fill_memory_is_not_read():
    """Its length is announced in a block of 512 bytes, and refused there."""
    info = tarfile.TarInfo("long")
    info.type, info.size = tarfile.XHDTYPE, EXTENSION_MAX_BYTES + 1
    assert "announces" in str(refused(info.tobuf() + bytes(10_240)))


def test_a_zip_s_list_that_would_fill_memory_is_not_read():
    content = bytearray(zip_of([("config.json", b"{}")]))
    content[:0] = b"PK\3\4" + bytes(DIRECTORY_MAX_BYTES + 100)
    end = content.rindex(b"PK\5\6")
    struct.pack_into("<I", content, end + 12, DIRECTORY_MAX_BYTES + 1)
    assert "list of members" in str(refused(bytes(content)))


def test_encrypted_and_oddly_packed_zips_are_refused():
    content = bytearray(zip_of([("config.json", b"{}")]))
    content[content.index(b"PK\1\2") + 8] |= 1
    error = refused(bytes(content))
    assert "config.json" in error.detail
    assert "encrypted" in error.detail
    assert "not taken" in str(refused(zip_of([("config.json", b"{}")], packed=zipfile.ZIP_LZMA)))


def test_a_zip_that_announces_less_than_it_holds_is_refused():
    """Its checksum is that of all the bytes."""
    content = bytearray(zip_of([("config.json", b"x" * 1000)]))
    struct.pack_into("<I", content, content.index(b"PK\1\2") + 24, 10)
    assert refused(bytes(content)).problem is ModelProblem.ARCHIVE_INVALID
    struct.pack_into("<I", content, content.index(b"PK\1\2") + 24, 5000)
    assert refused(bytes(content)).problem is ModelProblem.ARCHIVE_INVALID


@pytest.mark.parametrize("form", FORMS)
def test_an_outline_shows_what_the_folder_shows(folder: Path, tmp_path: Path, form: str):
    """The same facts from headers and holes; true sizes, hardly any room."""
    outline = tmp_path / "outline"
    outline.mkdir()
    with ModelArchive(io.BytesIO(pack(folder_files(folder), form)), max_bytes=MAX_BYTES) as archive:
        for file, pieces in archive.read():
            write_outline(outline / file.name, file.size_bytes, pieces)
    assert inspect_source(outline) == inspect_source(folder)
    for path in folder.iterdir():
        assert (outline / path.name).stat().st_size == path.stat().st_size
    weights = next(outline.glob("*.safetensors"))
    assert weights.stat().st_blocks * 512 < weights.stat().st_size


@pytest.mark.parametrize("content", [b"", b"\1", struct.pack("<Q", 1 << 60) + b"{}", struct.pack("<Q", 2) + b"{}xx"])
def test_a_broken_header_is_as_broken_in_the_outline(tmp_path: Path, content: bytes):
    """The inspection refuses both with the same words."""
    words = []
    for name in ("folder", "outline"):
        model = make_llama(tmp_path / name)
        (model / "model.safetensors").unlink()
        if name == "folder":
            (model / "model.safetensors").write_bytes(content)
        else:
            write_outline(model / "model.safetensors", len(content), (bytes([byte]) for byte in content))
        with pytest.raises(ModelRefusedError) as error:
            inspect_source(model)
        words.append(str(error.value))
    assert words[0] == words[1]
    assert "model.safetensors" in words[0]
