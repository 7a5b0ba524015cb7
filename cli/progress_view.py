"""Shows the progress of one run: a live bar with ETA on a terminal, a few plain lines anywhere else."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from cli.live import Drawing, Lines
from cli.output import duration_text

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

PLAIN_STEP = 0.1
BAR_WIDTH = 32
DETAIL_WIDTH = 78


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgressState:
    """What the bar shows. fraction: 0 to 1. eta_at: seconds since the epoch, None while unknown. detail: one line."""

    label: str
    fraction: float
    blocks_done: int = 0
    blocks_total: int = 0
    eta_at: float | None = None
    detail: str = ""


class ProgressView(AbstractContextManager["ProgressView"], Protocol):
    """Where states go; the view ends with its context."""

    def show(self, state: ProgressState) -> None:
        """Takes the newest state."""


def progress_view(console: Console) -> ProgressView:
    """Returns the view that fits the console."""
    return BarView(console) if console.is_terminal else PlainView(console)


def blocks_text(state: ProgressState) -> str:
    """Returns `block 12/30`, or nothing while the number of blocks is unknown."""
    return f"block {state.blocks_done}/{state.blocks_total}" if state.blocks_total else ""


def eta_text(state: ProgressState) -> str:
    """Returns the time left in words; an estimate that has run out is not stretched."""
    if state.eta_at is None or state.fraction >= 1.0:
        return ""
    left = state.eta_at - time.time()
    return f"{duration_text(left)} left" if left > 1.0 else "almost done"


class PlainView(Lines):
    """One line per stage and per tenth of the way: readable in a log file."""

    def __init__(self, console: Console) -> None:
        """Starts with nothing that was said."""
        super().__init__(console)
        self._label = ""
        self._next_fraction = 0.0

    def show(self, state: ProgressState) -> None:
        """Prints a line if the stage changed or another tenth was reached."""
        if state.label == self._label and state.fraction < self._next_fraction:
            return
        self._label = state.label
        self._next_fraction = (int(state.fraction / PLAIN_STEP) + 1) * PLAIN_STEP
        parts = (state.label, f"{state.fraction:4.0%}", blocks_text(state), eta_text(state))
        self._console.print("  ".join(part for part in parts if part), soft_wrap=True)


class BarView(Drawing):
    """A bar that is redrawn in place, with a line below it that names what happened last."""

    def __init__(self, console: Console) -> None:
        """Draws on the console from `__enter__` on."""
        from rich.live import Live

        self._state = ProgressState(label="starting", fraction=0.0)
        self._started_at = time.monotonic()
        super().__init__(Live(console=console, refresh_per_second=4, transient=True, get_renderable=self._render))

    def show(self, state: ProgressState) -> None:
        """Takes the newest state; it is drawn at the next refresh."""
        self._state = state

    def _render(self) -> RenderableType:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.spinner import Spinner
        from rich.table import Table
        from rich.text import Text

        state = self._state
        line = Table.grid(padding=(0, 1))
        line.add_row(
            Spinner("dots", style="cyan"),
            Text(f"{state.label:<12}", style="bold"),
            ProgressBar(total=1.0, completed=state.fraction, width=BAR_WIDTH),
            Text(f"{state.fraction:4.0%}"),
            Text(blocks_text(state)),
            Text(eta_text(state) or f"{duration_text(time.monotonic() - self._started_at)} so far", style="cyan"),
        )
        return Group(line, Text(f"  {state.detail[:DETAIL_WIDTH]}", style="dim"))
