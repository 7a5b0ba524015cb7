"""The devices of a run and their threads: the first works in the run's own, every further one in one of its own.

Batches are dealt out in runs of neighbours, once for a whole run: what leaves a block stays where it meets the next.
Devices that are the same processor share its threads.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from threading import Event
from types import TracebackType
from typing import Final, Self, TypeVar

import torch
from torch import nn

from core.checkpoint.aside import Aside, Piece
from core.environment import use_threads
from core.errors import RunStoppedError
from core.model.activations import Activations, Kept
from core.model.capture import BlockArguments

Result = TypeVar("Result")

SECONDS_BETWEEN_LOOKS: Final = 0.1


@dataclass(slots=True, kw_only=True)
class Station:
    """One device. device: None for the one on which a model in memory lies. further: not the first, where blocks lie.

    activations: what is kept there between uses, and the memory that it may take.
    """

    device: torch.device | None = None
    further: bool = False
    activations: Activations = field(default_factory=Activations)
    _placed: dict[int, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)

    def keep(self, tensor: torch.Tensor) -> Kept:
        """Puts a tensor away, on this device."""
        return self.activations.keep(tensor if self.device is None else tensor.to(self.device))

    def own(self, block: nn.Module) -> nn.Module:
        """Returns the block where it lies here, else a copy of it."""
        if not self.further:
            return block
        # What a deep copy is to take for a tensor: so that none is copied twice, nor on the device where it lies.
        memo: dict[int, object] = {
            id(weight): nn.Parameter(weight.detach().to(self.device, copy=True), requires_grad=False)
            for weight in block.parameters()
        }
        memo |= {id(buffer): buffer.to(self.device, copy=True) for buffer in block.buffers()}
        return copy.deepcopy(block, memo)

    def arguments(self, arguments: BlockArguments) -> BlockArguments:
        """Returns a block's arguments with their tensors on this device; equal ones are shared as on the first."""
        return arguments.mapped(self.place) if self.further else arguments

    def place(self, tensor: torch.Tensor) -> torch.Tensor:
        """Returns a tensor that lasts as long as the run on this device, the same one each time."""
        if not self.further:
            return tensor
        if id(tensor) not in self._placed:
            self._placed[id(tensor)] = tensor, tensor.to(self.device)
        return self._placed[id(tensor)][1]


class Team:
    """The devices of a run, the first of them the run's own. As a context it ends the others' threads."""

    def __init__(self, stations: Sequence[Station] = ()) -> None:
        """Without stations there is the run's own device, whose activations have no limit."""
        self._stations = tuple(stations) or (Station(),)
        further = [station.device for station in self._stations[1:] if station.device is not None]
        on_processor = any(device.type == "cpu" for device in further)
        self._threads = max(1, torch.get_num_threads() // len(self._stations)) if on_processor else None
        self._asides = [Aside(str(device), partial(self._prepare, device)) for device in further]
        self._ending = Event()

    @property
    def first(self) -> Station:
        """Returns the run's own device, which solves."""
        return self._stations[0]

    def shares(self, batches: int) -> list[tuple[Station, range]]:
        """Returns the devices that get any of so many batches, the first before all, and which they get."""
        count = len(self._stations)
        borders = [-(-number * batches // count) for number in range(count + 1)]
        dealt = zip(self._stations, map(range, borders, borders[1:]), strict=True)
        return [(station, numbers) for station, numbers in dealt if numbers or station is self.first]

    def homes(self, batches: int) -> list[Station]:
        """Returns the device of every batch."""
        return [station for station, numbers in self.shares(batches) for _ in numbers]

    def each(self, jobs: Sequence[Callable[[], Result]], meanwhile: Callable[[], None] = lambda: None) -> list[Result]:
        """Does one job per device, the first in this thread, and returns their results; at most one for each device.

        meanwhile: asked while this thread waits for the others; it may raise. All jobs have ended when an error is
        raised, the first that is more than the stop that another one led to.
        """
        self._ending.clear()
        own, *others = jobs
        pieces = [aside.begin(partial(self._watched, job)) for aside, job in zip(self._asides, others, strict=False)]
        results: list[Result] = []
        errors: list[BaseException] = []
        try:
            with self._sharing_processor(pieces):
                results.append(self._watched(own))
                self._watched(partial(_await, pieces, meanwhile))
        except BaseException as error:  # noqa: BLE001 - no job may outlive this call, whatever ends it
            errors.append(error)
        for piece in pieces:
            try:
                results.append(piece.result())
            except Exception as error:  # noqa: BLE001 - raised below
                errors.append(error)
        try:
            if errors:
                raise min(errors, key=lambda error: isinstance(error, RunStoppedError))
        finally:
            errors.clear()  # an error that is kept by its own frame would keep all that the frame holds
        return results

    def stop_if_ending(self, block: int) -> None:
        """Raises RunStoppedError in a job whose result nobody waits for any more."""
        if self._ending.is_set():
            raise RunStoppedError(block)

    def __enter__(self) -> Self:
        """Returns itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends the threads."""
        for aside in self._asides:
            aside.__exit__(kind, error, trace)

    def _watched(self, job: Callable[[], Result]) -> Result:
        try:
            return job()
        except BaseException:
            self._ending.set()
            raise

    def _prepare(self, device: torch.device) -> None:
        """Makes a thread its device's own."""
        if device.type == "cuda":
            torch.cuda.set_device(device)
        use_threads(self._threads or 1)

    @contextmanager
    def _sharing_processor(self, pieces: Sequence[Piece[Result]]) -> Iterator[None]:
        """Leaves the other devices their share of the processor's threads, where they are on it and at work."""
        if self._threads is None or not pieces:
            yield
            return
        threads = torch.get_num_threads()
        use_threads(self._threads)
        try:
            yield
        finally:
            use_threads(threads)


def _await(pieces: Sequence[Piece[Result]], meanwhile: Callable[[], None]) -> None:
    for piece in pieces:
        while not piece.wait(SECONDS_BETWEEN_LOOKS):
            meanwhile()
