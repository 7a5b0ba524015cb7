"""One batch's way through a block, set by set: suspended in a coroutine, replayed from the start, or recorded at once.

`rank` says in front of which set a pass stands, None before the start and after the end; `inputs` are what feeds that
set. `advance` takes it to the next set that is not solved yet; the block tells it where it arrives.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import greenlet
import torch

from core.model.activations import HiddenStates, Keep, Kept
from core.model.experts import mark_rows, token_rows
from core.model.holding import ENTERING, Fed, Spent


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRun:
    """One batch's pass: `run` calls the block and returns its output; token_mask is False at padding.

    run_float: the same on the float model's hidden states; it passes every linear before that gets its new weights.
    run_last: as `run`, which cannot run any more then: what enters is let go once the block has read it.
    number: among all batches, on whichever device they run.
    """

    run: Callable[[], torch.Tensor]
    token_mask: torch.Tensor | None
    run_float: Callable[[], torch.Tensor] | None = None
    run_last: Callable[[], torch.Tensor] | None = None
    number: int = 0


class SuspendedPass:
    """Waits in a coroutine of its own, with all that the block holds there and will read again."""

    def __init__(self, run: Callable[[], torch.Tensor], spent: Spent) -> None:
        self.rank: int | None = None
        self.started = False
        self.output: torch.Tensor | None = None
        self.inputs: torch.Tensor | None = None
        self._streams: dict[str, torch.Tensor] = {}
        self._fed = Fed(spent)
        self._run = run
        self._driver = greenlet.getcurrent()
        self._greenlet = greenlet.greenlet(run)

    def advance(self) -> None:
        """Goes on to the next set, or to the end."""
        self.started, self.inputs = True, None
        answer = self._greenlet.switch()
        if self._greenlet.dead:
            self.rank, self.output = None, answer
        else:
            self.rank = answer

    def enter(self, hidden: torch.Tensor) -> None:
        """Takes note of what the block is called with."""
        self._fed.arrive(ENTERING, hidden)

    def arrive(self, rank: int, X: torch.Tensor) -> None:
        """Stands in front of a set until the next `advance`; called inside the coroutine."""
        self._fed.arrive(rank, X)
        self.inputs = X
        self._driver.switch(rank)

    def note_stream(self, linear: str, stream: torch.Tensor) -> None:
        """Takes note of the residual stream that a linear will write into."""
        self._streams[linear] = stream.detach()  # the block's own may be emptied before it is taken

    def take_stream(self, linear: str) -> torch.Tensor | None:
        """Returns what was noted, once."""
        return self._streams.pop(linear, None)


class ReplayedPass(SuspendedPass):
    """Gives up where it stands and runs the block again from its start: slower, and holds a set's inputs at most."""

    def __init__(self, run: Callable[[], torch.Tensor]) -> None:
        """Takes what may run more than once."""
        super().__init__(run, {})

    def advance(self) -> None:
        """Runs up to the next set and leaves the block again."""
        self._streams.clear()
        self._greenlet = greenlet.greenlet(self._run)
        super().advance()
        if self.rank is not None:
            self._greenlet.throw()


class RecordedPass:
    """Runs to the end at once and keeps the inputs of every set on its way; for the float path of a replayed batch.

    That cannot be replayed: sets that are solved have lost their float weights.
    """

    def __init__(self, run: Callable[[], torch.Tensor], keep: Keep) -> None:
        self.started = False
        self.output: torch.Tensor | None = None
        self._run = run
        self._keep = keep
        self._inputs: dict[int, tuple[Kept, torch.Tensor | None]] = {}
        self._streams: dict[str, Kept] = {}

    @property
    def rank(self) -> int | None:
        """Returns the earliest set whose inputs are still here."""
        return min(self._inputs, default=None)

    @property
    def inputs(self) -> torch.Tensor | None:
        """Returns that set's inputs."""
        if self.rank is None:
            return None
        kept, rows = self._inputs[self.rank]
        X = kept.tensor()
        mark_rows(X, rows)
        return X

    def advance(self) -> None:
        """Runs; later, lets the earliest set's inputs go."""
        if self.started:
            del self._inputs[min(self._inputs)]
            return
        self.started = True
        self.output = self._run()

    def enter(self, hidden: torch.Tensor) -> None:
        """See SuspendedPass; it leaves the block at once."""

    def arrive(self, rank: int, X: torch.Tensor) -> None:
        """Keeps a set's inputs."""
        if rank not in self._inputs:
            self._inputs[rank] = (self._keep(X), token_rows(X))

    def note_stream(self, linear: str, stream: torch.Tensor) -> None:
        """See SuspendedPass."""
        self._streams[linear] = self._keep(stream)

    def take_stream(self, linear: str) -> torch.Tensor | None:
        """See SuspendedPass."""
        kept = self._streams.pop(linear, None)
        return None if kept is None else kept.tensor()


class BatchPass:
    """A batch's pass and, where the float model runs along, that one's beside it."""

    def __init__(self, batch: BatchRun, *, replayed: bool, keep: Keep, spent: Spent) -> None:
        self.token_mask = batch.token_mask
        self.number = batch.number
        self.collected = False
        self._left: Kept | None = None
        self._left_beside: Kept | None = None
        self.main = ReplayedPass(batch.run) if replayed else SuspendedPass(batch.run_last or batch.run, spent)
        self.beside: SuspendedPass | RecordedPass | None = None
        if batch.run_float is not None:
            self.beside = RecordedPass(batch.run_float, keep) if replayed else SuspendedPass(batch.run_float, spent)

    @property
    def rank(self) -> int | None:
        """Returns the set that the batch stands at."""
        return self.main.rank

    def float_inputs(self, rank: int) -> torch.Tensor | None:
        """Returns the float path's inputs where it stands at the same set; a router may have led it elsewhere."""
        return self.beside.inputs if self.beside is not None and self.beside.rank == rank else None

    def drift(self, names: tuple[str, ...]) -> torch.Tensor | None:
        """Returns float minus quantized stream in front of a set of one linear; None without both."""
        own = self.main.take_stream(names[0]) if len(names) == 1 else None
        beside = self.beside.take_stream(names[0]) if own is not None and self.beside is not None else None
        return None if own is None or beside is None else beside - own

    def put_away(self, keep: Keep) -> None:
        """Hands what has left the block to `keep`."""
        if self.main.output is not None:
            self._left = keep(self.main.output)
            self.main.output = None
        if self.beside is not None and self.beside.output is not None:
            self._left_beside = keep(self.beside.output)
            self.beside.output = None

    def left(self) -> HiddenStates:
        """Returns what was put away."""
        assert self._left is not None  # noqa: S101 - every pass runs to its end
        return HiddenStates(quantized=self._left, float_path=self._left_beside)
