"""Named places at which a test kills, holds or fails this process. In production no plan is set and each does nothing.

A plan is text, for example `block_synced@3=kill,uploaded=hold`: what happens the third time that this process syncs a
block, and the first time that it has uploaded an artifact. Each fault happens once per process.
"""

from __future__ import annotations

import errno
import os
import re
import signal
import time
from collections import Counter
from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path

_FAULT = re.compile(r"(?P<point>[a-z_]+)(?:@(?P<nth>[1-9]\d*))?=(?P<action>[a-z_]+)")
LOOK_SECONDS = 0.02


class FaultPoint(StrEnum):
    """The places, in the order in which a job passes them."""

    RECEIVED = "received"
    """A wake-up has arrived and nothing is claimed."""
    CLAIMED = "claimed"
    """The claim is committed and nothing is done for it."""
    DOWNLOADING = "downloading"
    """The downloader has its work order. In the child."""
    MODEL_FILE = "model_file"
    """A file of an uploaded model is about to be fetched."""
    BLOCK_WRITTEN = "block_written"
    """A block's bytes are written and synced, and not under their name yet. In the child."""
    BLOCK_SYNCED = "block_synced"
    """The block is under its name and the manifest does not have it. In the child."""
    BLOCK_RECORDED = "block_recorded"
    """The manifest has the block and the database does not. In the child."""
    CHECKPOINT_UPLOADED = "checkpoint_uploaded"
    """The block is in the object store and no row refers to it."""
    CHECKPOINT_RECORDED = "checkpoint_recorded"
    """The row that refers to it is committed."""
    PACKING = "packing"
    """Every block is done and the artifact is not begun. In the child."""
    EVALUATED = "evaluated"
    """The artifact is measured and its cards do not say so. In the child."""
    CARD_WRITTEN = "card_written"
    """A card says so and the list of hashes over it is the old one. In the child."""
    UPLOADING = "uploading"
    """One of the artifact's files, or a part of one, is about to be uploaded."""
    UPLOADED = "uploaded"
    """All of them are in the object store and no row refers to them."""
    PUBLISHING = "publishing"
    """The publishing transaction has written everything and is not committed."""
    PUBLISHED = "published"
    """It is committed, and the work folder is still there."""


class FaultPlanError(ValueError):
    """A plan that cannot be read."""


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _fill_the_disk() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _go_on() -> None:
    """The place is noted, as every place in a plan is, and that is all."""


HOLD = "hold"
ACTIONS: Mapping[str, Callable[[], None]] = {"kill": _kill, "enospc": _fill_the_disk, "note": _go_on}


class Faults:
    """One process's part in a plan. It leaves a file named after each place of the plan that it came by."""

    def __init__(self, plan: str = "", folder: Path | None = None) -> None:
        """folder: where those files lie; a held process goes on once a file `go` lies there too.

        Raises FaultPlanError.
        """
        self._actions = read_plan(plan)
        self._folder = folder
        self._passed: Counter[str] = Counter()

    def hit(self, point: str) -> None:
        """Does what the plan says for this place and this time, which is nearly always nothing."""
        if not self._actions:
            return
        self._passed[point] += 1
        action = self._actions.get((point, self._passed[point]))
        if action is None:
            return
        self._note(point)
        if action == HOLD:
            self._hold()
        else:
            ACTIONS[action]()

    def _note(self, point: str) -> None:
        if self._folder is not None:
            (self._folder / point).write_text(str(os.getpid()))

    def _hold(self) -> None:
        while self._folder is not None and not (self._folder / "go").exists():
            time.sleep(LOOK_SECONDS)


def read_plan(plan: str) -> Mapping[tuple[str, int], str]:
    """Returns {(place, n): action}; raises FaultPlanError naming the part that it cannot read."""
    actions = {}
    for part in filter(None, plan.split(",")):
        match = _FAULT.fullmatch(part.strip())
        if match is None or match["point"] not in set(FaultPoint) or match["action"] not in {*ACTIONS, HOLD}:
            known = f"{', '.join(FaultPoint)}; {', '.join([*ACTIONS, HOLD])}"
            raise FaultPlanError(f"{part!r} is no fault of the form point@n=action; there are: {known}")
        actions[match["point"], int(match["nth"] or 1)] = match["action"]
    return actions
