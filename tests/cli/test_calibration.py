"""`--calib` names a file, a data set of the hub or the model itself; what it cannot be is refused before any work."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.calibration_text import CalibrationSource, remarks
from cli.errors import CliError, ExitCode
from core.configs import CalibrationConfig
from tests.cli.conftest import Bitmill
from tests.worker.fake_hub import DATASET_REPO, FakeHub, fake_hub

SMALL = ("--group-size", "32", "--samples", "4", "--seq-len", "32", "--preset", "fast")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub with a data set of JSON Lines, named by the environment."""
    folder = tmp_path / "dataset"
    folder.mkdir()
    (folder / "train.jsonl").write_text('{"content": "The mill turns."}\n{"content": "The river flows."}\n')
    with fake_hub(folder, folder) as served:
        monkeypatch.setenv("BITMILL_HUB_ENDPOINT", served.endpoint)
        monkeypatch.setenv("BITMILL_CACHE_DIR", str(tmp_path / "cache"))
        yield served


def test_the_model_writes_its_own_text(local: Bitmill, models: Path, tmp_path: Path):
    """Nothing but the model is needed; what was drawn is said; the text goes with the work folder."""
    done = local(
        "run", "--src", str(models / "tiny"), "--dst", str(tmp_path / "out"), *SMALL, "--calib", "self", "--json"
    )
    assert done.returncode == ExitCode.OK, done.stderr
    assert "Calibration: self, 4 x 32 = 128 tokens of" in done.stderr
    assert json.loads(done.stdout)["blocks"] == 4
    assert not (tmp_path / "out.work").exists()


def test_a_data_set_is_fetched_from_the_hub_or_a_mirror(hub: FakeHub, tmp_path: Path):
    """The environment says where; the documents are those of the file."""
    source = CalibrationSource(f"hub:{DATASET_REPO}")
    documents = source.documents(tmp_path, CalibrationConfig(), tmp_path / "work", lambda *_: None)
    assert documents == ["The mill turns.", "The river flows."]
    assert any(request.endswith("train.jsonl") for request in hub.requests)
    with pytest.raises(CliError, match="could not be fetched") as refused:
        CalibrationSource("hub:acme/broken").documents(
            tmp_path, CalibrationConfig(), tmp_path / "work", lambda *_: None
        )
    assert refused.value.exit_code is ExitCode.UNAVAILABLE


@pytest.mark.parametrize("name", ["hub:nothing", "no-such-file.txt"])
def test_what_names_no_text_is_refused_before_any_work(local: Bitmill, models: Path, tmp_path: Path, name: str):
    """With the names that there are."""
    done = local("run", "--src", str(models / "tiny"), "--dst", str(tmp_path / "out"), *SMALL, "--calib", name)
    assert done.returncode == ExitCode.USAGE
    assert "wikitext2" in done.stderr


def test_a_users_text_is_looked_over_and_the_built_in_text_is_not(tmp_path: Path):
    """A remark is for a text that somebody can change."""
    text = tmp_path / "text.txt"
    text.write_text("one line alone " * 20)
    given, builtin = CalibrationSource(str(text)), CalibrationSource(None)
    for source, expected in ((given, 1), (builtin, 0)):
        documents = source.documents(tmp_path, CalibrationConfig(), tmp_path / "work", lambda *_: None)
        assert len(remarks(source, documents)) == expected
