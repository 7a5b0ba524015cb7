"""What every view of something that goes on has in common: how it is opened, and how it leaves the screen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

    from rich.console import Console
    from rich.live import Live


class Lines:
    """A view that writes lines, readable in a log file; there is nothing to close."""

    def __init__(self, console: Console) -> None:
        """Writes to the console, without any control sequence."""
        self._console = console

    def __enter__(self) -> Self:
        """Returns itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Has nothing to close."""


class Drawing:
    """A view that is redrawn in place; it is taken off the screen, and the caller prints what came of it."""

    def __init__(self, live: Live) -> None:
        """Draws from `__enter__` on."""
        self._live = live

    def __enter__(self) -> Self:
        """Starts drawing."""
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Takes it off the screen."""
        self._live.stop()
