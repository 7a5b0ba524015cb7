"""Names of data sets on the hub as calibration text: presets, and what a name of one's own may say.

`hub:NAME` is a preset; `hub:OWNER/DATASET[@REVISION][:FILE-PATTERN][#COLUMN]` is any other. Standard library only.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from core.errors import CalibrationProblem, CalibrationRefusedError, InvalidConfigError

SELF_SET: Final = "self"
"""Where a set is named: text that the float model writes itself."""
PREFIX: Final = "hub:"
DEFAULT_ENDPOINT: Final = "https://huggingface.co"
NAME_PATTERN: Final = (
    r"hub:[A-Za-z0-9][A-Za-z0-9._-]{0,95}(/[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
    r"(@[A-Za-z0-9][A-Za-z0-9._/-]{0,127})?(:[A-Za-z0-9*?._/-]{1,200})?(#[A-Za-z0-9_.-]{1,64})?)?"
)
READABLE: Final = (".parquet", ".jsonl", ".json", ".jsonl.gz", ".json.gz", ".jsonl.zst", ".json.zst", ".txt")
USUAL_COLUMNS: Final = ("text", "messages", "conversations", "content")


@dataclass(frozen=True, slots=True, kw_only=True)
class HubDataset:
    """A data set. revision: None is the default branch. files: a pattern of paths, None for the training split.

    column: what holds text or messages; None for the first of USUAL_COLUMNS that is there. joined: rows are pieces of
    one running text and not documents.
    """

    repo: str
    revision: str | None = None
    files: str | None = None
    column: str | None = None
    joined: bool = False

    def choose(self, paths: Sequence[str]) -> str:
        """Returns the file that is read: the first by name of those that match.

        Raises CalibrationRefusedError where none does.
        """
        readable = sorted(path for path in paths if path.endswith(READABLE))
        if self.files is None:
            found = [path for path in readable if "train" in path.lower()] or readable
        else:
            found = [path for path in readable if fnmatch.fnmatchcase(path, self.files)]
        if not found:
            raise CalibrationRefusedError(
                CalibrationProblem.DATASET_UNUSABLE,
                f"{self.repo} has no file {self.files or 'of text'} that can be read.",
                f"Name one that ends in {', '.join(READABLE)}: hub:{self.repo}:PATTERN.",
            )
        return found[0]


PRESETS: Final = {
    "wikitext2": HubDataset(
        repo="Salesforce/wikitext",
        revision="b08601e04326c79dfdd32d625aee71d232d685c3",
        files="wikitext-2-raw-v1/train-*.parquet",
        column="text",
        joined=True,
    ),
    "c4": HubDataset(
        repo="allenai/c4",
        revision="607bd4c8450a42878aa9ddc051a65a055450ef87",
        files="en/c4-train.00000-of-01024.json.gz",
        column="text",
    ),
    "pileval": HubDataset(
        repo="mit-han-lab/pile-val-backup",
        revision="2f5e46ae6a69cf0dce4b12f78241c408936ca0e4",
        files="val.jsonl.zst",
        column="text",
    ),
    "ultrachat": HubDataset(
        repo="HuggingFaceH4/ultrachat_200k",
        revision="8049631c405ae6576f93f445c6b8166f76f5505a",
        files="data/train_sft-00000-of-*.parquet",
        column="messages",
    ),
}


def parse_hub(name: str) -> HubDataset:
    """Returns the data set that a name stands for; raises InvalidConfigError where it is no such name."""
    if not re.fullmatch(NAME_PATTERN, name):
        raise _unknown(name, "not a name of a data set")
    rest = name.removeprefix(PREFIX)
    if "/" not in rest:
        if rest not in PRESETS:
            raise _unknown(name, "no such preset")
        return PRESETS[rest]
    rest, _, column = rest.partition("#")
    rest, _, files = rest.partition(":")
    repo, _, revision = rest.partition("@")
    return HubDataset(repo=repo, revision=revision or None, files=files or None, column=column or None)


def _unknown(name: str, reason: str) -> InvalidConfigError:
    allowed = f"hub: with {', '.join(PRESETS)} or OWNER/DATASET[@REVISION][:FILE-PATTERN][#COLUMN]"
    return InvalidConfigError("calibration.set", name, reason, allowed)
