"""Keeps activations from one use to the next: in memory while a budget has room, else in a file that is mapped.

The file has no name, so that it is gone with the process, however that ends. Every use maps its part anew: what nobody
works on takes no memory. What is kept comes back bit by bit; a budget never changes a result.
"""

from __future__ import annotations

import mmap
import os
import tempfile
import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, TypeAlias

import numpy as np
import torch

# Before the first block has shown what a suspended batch holds, hidden states may take this share of the budget: a
# decoder's batches hold about seven times as much inside a block as between two.
ENTERING_SHARE: Final = 1 / 8


class Kept(Protocol):
    """A tensor that was put away."""

    @property
    def numel(self) -> int:
        """Returns how many numbers it holds."""

    def tensor(self) -> torch.Tensor:
        """Returns it; not to be written to."""

    def another(self) -> Kept:
        """Returns the same memory as a tensor of its own, which stays what it is when this one is emptied."""


@dataclass(frozen=True, slots=True)
class InMemory:
    """A tensor that stays where it is."""

    value: torch.Tensor

    @property
    def numel(self) -> int:
        """Returns how many numbers it holds."""
        return self.value.numel()

    def tensor(self) -> torch.Tensor:
        """Returns it."""
        return self.value

    def another(self) -> Kept:
        """See Kept."""
        return InMemory(self.value.detach())


@dataclass(frozen=True, slots=True)
class _Taken:
    """What is left of a tensor that was handed on."""

    numel: int

    def tensor(self) -> torch.Tensor:
        raise ValueError("these states were handed on to the block that they enter")

    def another(self) -> Kept:
        return self


Keep: TypeAlias = Callable[[torch.Tensor], Kept]


class HiddenStates:
    """One batch's hidden states [B, T, hidden] between two blocks.

    quantized: behind the quantized blocks so far. float_path: behind the same blocks in float; None where not carried.
    Who takes a path's states gets the last reference to them: they cannot be read here any more.
    """

    __slots__ = ("_beside", "_main")

    def __init__(self, *, quantized: torch.Tensor | Kept, float_path: torch.Tensor | Kept | None = None) -> None:
        """Takes what was put away; tensors stay in memory."""
        self._main = _as_kept(quantized)
        self._beside = None if float_path is None else _as_kept(float_path)

    @property
    def quantized(self) -> torch.Tensor:
        """Returns the quantized path's states."""
        return self._main.tensor()

    @property
    def float_path(self) -> torch.Tensor | None:
        """Returns the float path's states."""
        return None if self._beside is None else self._beside.tensor()

    def float_states(self) -> torch.Tensor:
        """Returns the float path's states; raises ValueError without one."""
        if self._beside is None:
            raise ValueError("the float path is not carried beside this batch")
        return self._beside.tensor()

    def another(self) -> HiddenStates:
        """Returns the same states, which stay readable there when they are taken here."""
        beside = None if self._beside is None else self._beside.another()
        return HiddenStates(quantized=self._main.another(), float_path=beside)

    def take_quantized(self) -> torch.Tensor:
        """Returns the quantized path's states, once."""
        states, self._main = self.quantized, _Taken(self.numel)
        return states

    def take_float_states(self) -> torch.Tensor:
        """Returns the float path's states, once; raises ValueError without one."""
        states, self._beside = self.float_states(), _Taken(self.numel)
        return states

    @property
    def numel(self) -> int:
        """Returns how many numbers the states of one path are."""
        return self._main.numel

    @property
    def has_float_path(self) -> bool:
        """Whether the float model runs beside this batch."""
        return self._beside is not None


def _as_kept(states: torch.Tensor | Kept) -> Kept:
    return InMemory(states) if isinstance(states, torch.Tensor) else states


class Activations:
    """What one run keeps; without a budget all of it stays in memory. Another thread may read and let go."""

    def __init__(self, budget_bytes: int | None = None, folder: Path | None = None) -> None:
        """folder: where the file lies while it is needed; the system's own for such files by default."""
        self._budget = budget_bytes
        self._room = 0 if budget_bytes is None else int(budget_bytes * ENTERING_SHARE)
        self._in_memory = 0
        self._lock = threading.RLock()
        self._folder = folder
        self._file: _SlotFile | None = None
        self.spilled_bytes = 0

    @property
    def is_limited(self) -> bool:
        """Whether there is a budget."""
        return self._budget is not None

    def admit(self, held_bytes: Sequence[int]) -> int:
        """Returns how many of a block's batches may stay suspended at once, the first ones.

        held_bytes: what each of them holds at most. Room that they leave is for hidden states.
        """
        if self._budget is None:
            return len(held_bytes)
        admitted = taken = 0
        for nbytes in held_bytes:
            if taken + nbytes > self._budget:
                break
            admitted, taken = admitted + 1, taken + nbytes
        self._room = self._budget - taken if admitted == len(held_bytes) else 0
        return admitted

    def keep(self, tensor: torch.Tensor) -> Kept:
        """Puts a tensor away; it must not be written to any more."""
        if self._budget is None:
            return InMemory(tensor)
        with self._lock:
            stays = self._in_memory + tensor.nbytes <= self._room
            self._in_memory += tensor.nbytes if stays else 0
        if stays:
            weakref.finalize(tensor, self._forget, tensor.nbytes)
            return InMemory(tensor)
        if self._file is None:
            self._file = _SlotFile(self._folder)
        self.spilled_bytes += tensor.nbytes
        return self._file.write(tensor)

    def _forget(self, nbytes: int) -> None:
        with self._lock:
            self._in_memory -= nbytes


class _Slot:
    """A part of the file; free for others once nobody refers to it."""

    def __init__(self, file: _SlotFile, start: int, nbytes: int) -> None:
        self.file = file
        self.start = start
        weakref.finalize(self, file.release, start, nbytes)


class _Mapping(mmap.mmap):
    """A mapped part of the file; a tensor's storage keeps it, and so the slot, alive."""

    slot: _Slot


@dataclass(frozen=True, slots=True)
class _Spilled:
    slot: _Slot
    dtype: torch.dtype
    shape: torch.Size
    device: torch.device
    nbytes: int

    @property
    def numel(self) -> int:
        return self.shape.numel()

    def tensor(self) -> torch.Tensor:
        mapping = _Mapping(self.slot.file.number, self.nbytes, access=mmap.ACCESS_COPY, offset=self.slot.start)
        mapping.slot = self.slot
        return torch.frombuffer(mapping, dtype=self.dtype).view(self.shape).to(self.device)

    def another(self) -> Kept:
        return self  # each use maps it anew


class _SlotFile:
    """A file without a name whose parts are written once, and used again when they are free. number: its descriptor."""

    def __init__(self, folder: Path | None) -> None:
        with tempfile.TemporaryFile(dir=folder) as file:
            self.number = os.dup(file.fileno())
        weakref.finalize(self, os.close, self.number)
        self._end = 0
        self._free: dict[int, list[int]] = {}
        self._lock = threading.RLock()

    def write(self, tensor: torch.Tensor) -> Kept:
        if not tensor.numel():
            return InMemory(tensor)
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        slot = self._slot(flat.nbytes)
        array: np.ndarray[tuple[int], np.dtype[np.uint8]] = flat.view(torch.uint8).numpy()
        view = array.data
        written = 0
        while written < len(view):
            written += os.pwrite(self.number, view[written:], slot.start + written)
        return _Spilled(slot, tensor.dtype, tensor.shape, tensor.device, flat.nbytes)

    def release(self, start: int, nbytes: int) -> None:
        with self._lock:
            self._free.setdefault(nbytes, []).append(start)

    def _slot(self, nbytes: int) -> _Slot:
        whole = -(-nbytes // mmap.ALLOCATIONGRANULARITY) * mmap.ALLOCATIONGRANULARITY
        with self._lock:
            free = self._free.get(whole)
            if free:
                return _Slot(self, free.pop(), whole)
            self._end += whole
            return _Slot(self, self._end - whole, whole)
