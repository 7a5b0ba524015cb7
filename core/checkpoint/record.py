"""What a work folder says of itself: its blocks and the settings that they were solved under, as a file. No torch.

`manifest` reads and writes it while a run goes on; a worker that carries blocks to another machine does the same.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from core.checkpoint.durable import replace_file
from core.errors import ResumeRefusedError

MANIFEST_FILE: Final = "manifest.json"
MANIFEST_VERSION: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprint:
    """Everything that the bytes of a block depend on. Two runs with equal fingerprints write equal blocks.

    config: canonical JSON. numerics: library, device, instruction set and dtype, for example "torch 2.13.0 cpu AVX512".
    """

    model_sha256: str
    calibration_sha256: str
    config: str
    engine_version: str
    numerics: str

    @property
    def sha256(self) -> str:
        """Returns one name for all of it."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()

    def to_dict(self) -> dict[str, str]:
        """Returns the constructor's arguments."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedFile:
    """A file of the work folder with the hash that it must have."""

    file: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedBlock:
    """One solved block: its file and its lines of the report, as plain JSON values."""

    block: RecordedFile
    rows: tuple[dict[str, Any], ...]

    def to_dict(self) -> dict[str, Any]:
        """Returns JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> RecordedBlock:
        """Reads what `to_dict` wrote; raises KeyError or TypeError where it is none."""
        return cls(block=RecordedFile(**values["block"]), rows=tuple(values["rows"]))


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkRecord:
    """The record of one work folder. activations: those that enter a block, by its index."""

    fingerprint: Fingerprint
    blocks: tuple[RecordedBlock, ...] = ()
    activations: dict[int, RecordedFile] = field(default_factory=dict)


def block_file_name(index: int) -> str:
    """Returns the name of a block's file in its work folder."""
    return f"block-{index:05d}.safetensors"


def write_record(work_dir: Path, record: WorkRecord) -> None:
    """Puts the record in its place, durably; the files that it names must be there before."""
    values = {
        "version": MANIFEST_VERSION,
        "fingerprint": record.fingerprint.to_dict(),
        "blocks": [block.to_dict() for block in record.blocks],
        "activations": {str(index): asdict(recorded) for index, recorded in record.activations.items()},
    }
    text = json.dumps(values, sort_keys=True, allow_nan=False).encode()
    replace_file(work_dir / MANIFEST_FILE, [text])


def read_record(work_dir: Path) -> WorkRecord | None:
    """Returns the folder's record, None where it has none; raises ResumeRefusedError where it cannot be read."""
    path = work_dir / MANIFEST_FILE
    try:
        values = json.loads(path.read_bytes())
        if values["version"] != MANIFEST_VERSION:
            raise ResumeRefusedError("manifest version", str(values["version"]), str(MANIFEST_VERSION))
        return WorkRecord(
            fingerprint=Fingerprint(**values["fingerprint"]),
            blocks=tuple(RecordedBlock.from_dict(block) for block in values["blocks"]),
            activations={int(index): RecordedFile(**entry) for index, entry in values["activations"].items()},
        )
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ResumeRefusedError(path.name, "a readable record", f"unreadable: {error}") from error
