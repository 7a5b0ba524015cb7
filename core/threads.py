"""Settings of the OpenMP runtime that must be made before torch is loaded. Standard library only."""

from __future__ import annotations

import os

_WAIT_POLICY = "OMP_WAIT_POLICY"


def wait_without_spinning() -> None:
    """Lets threads sleep at a barrier instead of spinning on a core that another process could use.

    Spinning gains nothing on an idle machine here, and with two jobs on it each waits for threads that the other's
    spinning keeps off the cores: such runs were two to four times slower. A policy set by the user stays.
    """
    os.environ.setdefault(_WAIT_POLICY, "PASSIVE")
