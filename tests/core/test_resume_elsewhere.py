"""Blocks that were carried to another folder, with nothing beside them, are enough for every method and option."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest

from core.calibration.windows import CalibrationWindows
from core.checkpoint.record import WorkRecord, read_record, write_record
from core.configs.options import DeclaredOption, declared_options
from core.configs.registry import CONFIG_CLASSES, config_from_dict
from core.configs.values import Method
from core.errors import RunStoppedError
from core.events import Event, RunStarted
from core.pipeline import quantize_checkpoint
from tests.core.stops import stop_in
from tests.core.tiny import random_tokens, write_tiny_model

MEASURED = {"quantization_report.json", "SHA256SUMS"}
STOPPED_AFTER = 2
VOCABULARY = 288
BASE: dict[str, Any] = {"bits": 4, "group_size": 32}
QUICK: dict[Method, dict[str, Any]] = {Method.ADAROUND: {"iterations": 20}}


def other_values(declared: DeclaredOption) -> Iterator[object]:
    """Yields values of an option beside its default: all of a choice, the other of two, the lowest number."""
    if isinstance(declared.type, type) and issubclass(declared.type, StrEnum):
        yield from (str(value) for value in declared.type if value != declared.default)
    elif declared.type is bool:
        yield not declared.default
    elif declared.option.choices:
        yield from (value for value in declared.option.choices if value != BASE.get(declared.name, declared.default))
    elif declared.type in {int, float} and declared.option.low is not None and declared.name != "group_size":
        low = declared.type(declared.option.low)
        if declared.option.accepts(low) and low != declared.default:
            yield low


def configs() -> Iterator[dict[str, Any]]:
    """Yields each method by itself and with each of its options changed alone."""
    for method, config_class in CONFIG_CLASSES.items():
        base = {"method": str(method), **BASE, **QUICK.get(method, {})}
        yield base
        for name, declared in declared_options(config_class).items():
            if name not in QUICK.get(method, {}):
                yield from ({**base, name: value} for value in other_values(declared))


def named(config: dict[str, Any]) -> str:
    changed = {name: value for name, value in config.items() if BASE.get(name) != value and name != "method"}
    return "-".join([str(config["method"]), *(f"{name}={value}" for name, value in changed.items())])


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """Two tiny models, by whether they have experts; their heads fill whole words of codes, for `lm_head`."""
    folder = tmp_path_factory.mktemp("sources")
    return {
        experts: write_tiny_model(folder / family, family, vocab_size=VOCABULARY)
        for experts, family in ((False, "llama"), (True, "qwen3_moe"))
    }


def windows() -> CalibrationWindows:
    tokens = random_tokens(16, 32)
    return CalibrationWindows(tokens_NT=tokens, sha256="0" * 64, tokens_available=tokens.numel())


@pytest.mark.parametrize("values", list(configs()), ids=named)
def test_blocks_alone_are_enough(values: dict[str, Any], sources: dict[bool, Path], tmp_path: Path):
    """Stopped here and gone on with there, a run solves the rest and ends in the bytes of an undisturbed one."""
    config = config_from_dict(values)
    source = sources["feed_all_experts" in values]
    quantize_checkpoint(source, tmp_path / "straight", config, windows())
    listen, should_stop = stop_in(STOPPED_AFTER)
    with pytest.raises(RunStoppedError):
        quantize_checkpoint(source, tmp_path / "here", config, windows(), on_event=listen, should_stop=should_stop)
    carry(tmp_path / "here.work", tmp_path / "there.work")
    events: list[Event] = []
    quantize_checkpoint(source, tmp_path / "there", config, windows(), on_event=events.append)
    assert [event.blocks_resumed for event in events if isinstance(event, RunStarted)] == [STOPPED_AFTER]
    assert contents(tmp_path / "there") == contents(tmp_path / "straight")


def carry(here: Path, there: Path) -> None:
    """Brings finished blocks and their record over, as a worker does by way of the object store."""
    record = read_record(here)
    assert record is not None
    there.mkdir()
    for block in record.blocks:
        shutil.copy(here / block.block.file, there)
    write_record(there, WorkRecord(fingerprint=record.fingerprint, blocks=record.blocks))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name not in MEASURED}
