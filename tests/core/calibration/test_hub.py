"""Data sets of the hub: names, what is chosen of their files, every format that is read, and what is refused."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core.calibration.documents import Conversation, Turn
from core.calibration.hub import NAME_PATTERN, PRESETS, HubDataset, parse_hub
from core.calibration.rows import write_documents
from core.calibration.texts import read_documents
from core.errors import CalibrationProblem, CalibrationRefusedError, InvalidConfigError

ANY = HubDataset(repo="acme/words")
ROWS = [{"text": f"Row {number}.\n", "id": number} for number in range(5)]
TALK = [{"messages": [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello."}]}]


def test_every_preset_is_pinned_and_has_a_name():
    """A commit, a file and a column each; the names that the documentation promises."""
    assert set(PRESETS) == {"wikitext2", "c4", "pileval", "ultrachat"}
    for name, preset in PRESETS.items():
        assert parse_hub(f"hub:{name}") is preset
        assert re.fullmatch(r"[0-9a-f]{40}", str(preset.revision))
        assert preset.files
        assert preset.column


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("hub:acme/words", ANY),
        ("hub:acme/words@v1", HubDataset(repo="acme/words", revision="v1")),
        (
            "hub:acme/words@a/b:data/*.parquet#body",
            HubDataset(repo="acme/words", revision="a/b", files="data/*.parquet", column="body"),
        ),
        ("hub:acme/words#body", HubDataset(repo="acme/words", column="body")),
    ],
)
def test_a_name_says_data_set_revision_file_and_column(name: str, expected: HubDataset):
    """Each part but the first may be left out."""
    assert re.fullmatch(NAME_PATTERN, name)
    assert parse_hub(name) == expected


@pytest.mark.parametrize("name", ["hub:", "hub:nothing", "hub:a b/c", "hub:../x", "hub:a/b/c", "hub:a/b@", "c4"])
def test_what_is_no_name_is_refused(name: str):
    """With the field and the presets."""
    with pytest.raises(InvalidConfigError, match="wikitext2") as refused:
        parse_hub(name)
    assert refused.value.field == "calibration.set"


def test_the_training_split_is_chosen_unless_a_pattern_says_otherwise():
    """The first file by name; nothing readable is refused."""
    paths = ["README.md", "data/test-0.parquet", "data/train-1.parquet", "data/train-0.parquet", "x.py"]
    assert ANY.choose(paths) == "data/train-0.parquet"
    assert HubDataset(repo="acme/words", files="*/test*").choose(paths) == "data/test-0.parquet"
    assert ANY.choose(["val.jsonl.zst"]) == "val.jsonl.zst"
    with pytest.raises(CalibrationRefusedError, match="no file") as refused:
        ANY.choose(["README.md"])
    assert refused.value.problem is CalibrationProblem.DATASET_UNUSABLE


def write(folder: Path, name: str, rows: list[dict[str, object]]) -> Path:
    """Writes rows in the format that the name's ending tells."""
    path = folder / name
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    if name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif name.endswith(".gz"):
        path.write_bytes(gzip.compress(lines))
    elif name.endswith(".zst"):
        with pa.output_stream(str(path), compression="zstd") as stream:
            stream.write(lines)
    else:
        path.write_bytes(lines)
    return path


@pytest.mark.parametrize("ending", ["parquet", "jsonl", "json.gz", "jsonl.zst"])
def test_every_format_gives_the_same_documents(tmp_path: Path, ending: str):
    """Texts and conversations; joined rows are one document; a limit keeps the first ones."""
    path, out = write(tmp_path, f"train.{ending}", list(ROWS)), tmp_path / "out.jsonl"
    assert write_documents(path, ANY, out) == 5
    assert list(read_documents(out)) == [row["text"] for row in ROWS]
    assert write_documents(path, HubDataset(repo="acme/words", joined=True), out) == 1
    assert list(read_documents(out)) == ["".join(str(row["text"]) for row in ROWS)]
    assert write_documents(path, ANY, out, max_characters=15) == 2
    assert write_documents(write(tmp_path, f"talk.{ending}", list(TALK)), ANY, out) == 1
    assert list(read_documents(out)) == [Conversation((Turn("user", "Hi."), Turn("assistant", "Hello.")))]


def test_what_holds_no_text_is_refused_with_its_columns(tmp_path: Path):
    """A wrong column, a column of numbers, no usual column, a broken file."""
    path, out = write(tmp_path, "train.parquet", list(ROWS)), tmp_path / "out.jsonl"
    for dataset, words in (
        (HubDataset(repo="acme/words", column="body"), "no column 'body', but id, text"),
        (HubDataset(repo="acme/words", column="id"), "neither text nor messages"),
    ):
        with pytest.raises(CalibrationRefusedError, match=words):
            write_documents(path, dataset, out)
    numbers = write(tmp_path, "numbers.jsonl", [{"id": 1}])
    with pytest.raises(CalibrationRefusedError, match="none of the columns"):
        write_documents(numbers, ANY, out)
    for name in ("broken.parquet", "broken.jsonl.zst", "broken.json.gz", "broken.jsonl"):
        broken = tmp_path / name
        broken.write_bytes(b"PAR1 not really")
        with pytest.raises(CalibrationRefusedError, match=r"cannot be read"):
            write_documents(broken, ANY, out)
    assert not out.exists()
