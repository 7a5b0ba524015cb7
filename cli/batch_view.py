"""Shows a batch while it runs: a table that is redrawn in place on a terminal, a line per change anywhere else."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

from cli.batch_text import batch_table, row_state, states_text
from cli.compare_table import letter
from cli.job_text import method_text
from cli.live import Drawing, Lines

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console


class BatchView(AbstractContextManager["BatchView"], Protocol):
    """Where answers go; the view ends with its context."""

    def show(self, batch: Mapping[str, Any]) -> None:
        """Takes the newest answer."""

    def complain(self, message: str) -> None:
        """Says that there is no answer for now."""


def batch_view(console: Console) -> BatchView:
    """Returns the view that fits the console."""
    return TableView(console) if console.is_terminal else LinesView(console)


class LinesView(Lines):
    """One line for each change of a job's state: readable in a log file."""

    def __init__(self, console: Console) -> None:
        """Starts with nothing that was said."""
        super().__init__(console)
        self._states: dict[str, str] = {}

    def show(self, batch: Mapping[str, Any]) -> None:
        """Prints the jobs that are in another state than before."""
        from rich.text import Text

        for at, row in enumerate(batch["table"]):
            if self._states.get(row["job_id"]) != row["state"]:
                self._states[row["job_id"]] = row["state"]
                said = (letter(at), row["job_id"], row_state(row).plain, row["model"], method_text(row["config"]))
                self._console.print(Text("  ".join(said)), soft_wrap=True)

    def complain(self, message: str) -> None:
        """Prints it."""
        self._console.print(message, soft_wrap=True, markup=False)


class TableView(Drawing):
    """The whole table with a line below it that sums it up."""

    def __init__(self, console: Console) -> None:
        """Draws on the console from `__enter__` on."""
        from rich.live import Live

        super().__init__(Live(console=console, auto_refresh=False, transient=True))

    def show(self, batch: Mapping[str, Any]) -> None:
        """Draws the table."""
        from rich.console import Group
        from rich.text import Text

        self._live.update(Group(batch_table(batch), Text(states_text(batch["states"]), style="dim")), refresh=True)

    def complain(self, message: str) -> None:
        """Prints it above the table."""
        self._live.console.print(message, soft_wrap=True, markup=False)
