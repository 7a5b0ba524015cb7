"""`bitmill models` against a running service: a folder or an archive goes in, a job runs on it."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from pathlib import Path

import httpx
import pytest

from cli.errors import CliError, ExitCode
from cli.jobs import model_field
from cli.model_pack import PackedFolder, SentStream
from core.preflight.archive import ModelArchive
from tests.cli.conftest import Bitmill
from tests.core.preflight.archives import folder_files, pack
from tests.ops.service import RunningService


@pytest.fixture
def folder(models: Path, tmp_path: Path) -> Path:
    """A model outside of the service's roots, with something beside it that is not sent."""
    model = Path(shutil.copytree(models / "tiny", tmp_path / "mine"))
    (model / "README.md").write_text("#")
    return model


def test_a_folder_is_uploaded_and_quantized(at_service: Bitmill, service: RunningService, folder: Path):
    """Without an archive on the disk; the id is all that stdout has, and a job may name it."""
    done = at_service("models", "upload", str(folder), "--name", "My model")
    assert done.returncode == ExitCode.OK, done.stderr
    model_id = done.stdout.strip()
    assert "100%" in done.stderr
    shown = json.loads(at_service("models", "show", model_id, "--json").stdout)
    assert shown["name"] == "My model"
    assert [file["name"] for file in shown["contents"]] == sorted(folder_files(folder).keys() - {"README.md"})
    shutil.rmtree(folder)
    job = at_service("jobs", "submit", "--model", model_id, "--method", "rtn", "--group-size", "32", "--wait")
    assert job.returncode == ExitCode.OK, job.stderr
    assert "My model" in at_service("jobs", "list").stdout
    table = at_service("models", "list").stdout
    assert model_id in table
    assert "llama" in table
    kept = at_service("models", "keep", model_id, "--until", "2030-01-01T00:00:00Z")
    assert kept.stdout.strip() == f"{model_id} is kept until 2030-01-01T00:00:00Z."
    assert "until 2030-01-01T00:00:00Z" in at_service("models", "list").stdout
    assert json.loads(at_service("models", "keep", model_id, "--pin", "--json").stdout)["pinned"] is True
    assert "pinned" in at_service("models", "list").stdout
    assert at_service("models", "delete", model_id).returncode == ExitCode.OK
    assert at_service("models", "show", model_id).returncode == ExitCode.REFUSED
    assert not list((service.data_dir / "uploads").glob("*"))


def test_an_archive_is_uploaded_as_it_is(at_service: Bitmill, folder: Path, tmp_path: Path):
    """And the same files from a folder are the same model."""
    archive = tmp_path / "mine.tar.gz"
    archive.write_bytes(pack(folder_files(folder), "tar.gz"))
    first = json.loads(at_service("models", "upload", str(archive), "--json").stdout)
    assert first["name"] == "mine.tar.gz"
    again = json.loads(at_service("models", "upload", str(folder), "--json").stdout)
    assert again["id"] == first["id"]
    assert [model["id"] for model in json.loads(at_service("models", "list", "--json").stdout)["models"]] == [
        first["id"]
    ]
    assert at_service("models", "delete", first["id"], "--json").returncode == ExitCode.OK
    assert "No model" in at_service("models", "list").stdout


def test_what_no_job_could_use_is_refused(at_service: Bitmill, folder: Path, tmp_path: Path):
    """A folder before a byte is sent, an archive by the service, with its words."""
    (folder / "modeling.py").write_text("")
    refused = at_service("models", "upload", str(folder))
    assert refused.returncode == ExitCode.USAGE
    assert "modeling.py" in refused.stderr
    archive = tmp_path / "mine.zip"
    archive.write_bytes(pack(folder_files(folder), "zip"))
    refused = at_service("models", "upload", str(archive), "--json")
    assert refused.returncode == ExitCode.USAGE
    assert json.loads(refused.stderr.splitlines()[-1])["error"]["code"] == "forbidden_file"
    absent = at_service("models", "upload", str(tmp_path / "absent.tar"))
    assert absent.returncode == ExitCode.USAGE
    assert "fix:" in absent.stderr


def test_a_folder_is_packed_as_it_is_sent(folder: Path):
    """The length is told before; tarfile reads it, and so does the service's reader."""
    packed = PackedFolder(folder)
    content = b"".join(packed.pieces())
    assert len(content) == packed.size_bytes
    expected = {name: data for name, data in folder_files(folder).items() if name != "README.md"}
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        assert tar.getnames() == sorted(expected)
    with ModelArchive(io.BytesIO(content), max_bytes=1 << 30) as archive:
        assert {file.name: b"".join(pieces) for file, pieces in archive.read()} == expected


@pytest.mark.parametrize("change", [b"", b"longer than it was"])
def test_a_file_that_changes_meanwhile_is_noticed(folder: Path, change: bytes):
    """Before the length that was announced is wrong for good."""
    packed = PackedFolder(folder)
    (folder / "tokenizer_config.json").write_bytes(change * 1000)
    with pytest.raises(CliError, match="changed"):
        list(packed.pieces())


def test_a_stream_tells_its_length_and_how_far_it_is():
    """Httpx asks for the length, so that the service can weigh its disk before the first byte."""
    told: list[int] = []
    stream = SentStream(iter([b"abc", b"", b"defg"]), 7, told.append)
    request = httpx.Request("POST", "http://localhost", files={"file": ("a.tar", stream)})
    assert int(request.headers["Content-Length"]) > 7
    assert "Transfer-Encoding" not in request.headers
    assert b"abcdefg" in request.read()
    assert told[-1] == 7
    with pytest.raises(io.UnsupportedOperation):
        stream.seek(0)


def test_an_id_is_told_from_a_hub_s_and_a_folder_s_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    model_id = f"mdl_{'0' * 32}"
    assert model_field(model_id, None) == {"source": "upload", "id": model_id}
    assert model_field("mdl_short", None)["source"] == "hub"
    monkeypatch.chdir(tmp_path)
    (tmp_path / model_id).mkdir()
    assert model_field(model_id, None)["source"] == "path"
