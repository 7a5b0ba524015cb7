"""Looks for NaN and infinity in a model's stored weights, before any work is spent on them.

Reads every float byte once, at the speed of bytes.translate, in constant memory. Standard library only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.errors import ModelProblem, ModelRefusedError
from core.profile import Work, span

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from core.preflight.safetensors_header import TensorFacts
    from core.preflight.source import ModelFacts

CHUNK_BYTES = 4 * 2**20  # a multiple of every element's width

# A value is NaN or infinite where all bits of its exponent are set. In the top byte (sign and high exponent bits) and,
# where the exponent reaches into it, in the next byte, these are the bits: (top byte, next byte).
EXPONENT_BITS = {
    "float64": (0x7F, 0xF0),
    "float32": (0x7F, 0x80),
    "bfloat16": (0x7F, 0x80),
    "float16": (0x7C, 0x00),
}
WIDTHS = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}


@span(Work.CHECK)
def refuse_non_finite(source_dir: Path, facts: ModelFacts) -> None:
    """Raises ModelRefusedError (NON_FINITE_WEIGHTS), naming the first tensor that holds NaN or infinity."""
    for name, tensor in facts.tensors.items():
        if tensor.dtype in EXPONENT_BITS and has_non_finite(source_dir, tensor):
            raise ModelRefusedError(
                ModelProblem.NON_FINITE_WEIGHTS,
                f"{name} holds NaN or infinite weights.",
                "Download the model again, or take another checkpoint of the training.",
            )


def has_non_finite(source_dir: Path, tensor: TensorFacts) -> bool:
    """Returns whether a float tensor holds NaN or infinity."""
    top_bits, next_bits = EXPONENT_BITS[tensor.dtype]
    width = WIDTHS[tensor.dtype]
    top_marks, next_marks = _marks(top_bits), _marks(next_bits)
    for chunk in _chunks(source_dir, tensor):
        top = int.from_bytes(chunk[width - 1 :: width].translate(top_marks), "little")
        if top and top & int.from_bytes(chunk[width - 2 :: width].translate(next_marks), "little"):
            return True
    return False


def _marks(bits: int) -> bytes:
    """Returns the translation of each byte to 1 where it has all the bits, else to 0."""
    return bytes(value & bits == bits for value in range(256))


def _chunks(source_dir: Path, tensor: TensorFacts) -> Iterator[bytes]:
    with (source_dir / tensor.file).open("rb") as file:
        file.seek(tensor.start)
        left = tensor.nbytes
        while left:
            chunk = file.read(min(CHUNK_BYTES, left))
            if not chunk:
                return
            left -= len(chunk)
            yield chunk
