"""What this API's machine does in a second, once a run on it has measured that; workers may have other machines."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from core.preflight.rates import known_rates

if TYPE_CHECKING:
    from pathlib import Path

    from core.preflight.rates import MachineRates

LOOK_SECONDS = 5.0


class Machine:
    """Looks for the rates until they are there, not at every request."""

    def __init__(self, cache_dir: Path) -> None:
        self._cache_dir = cache_dir
        self._known: MachineRates | None = None
        self._looked_at = float("-inf")

    def rates(self) -> MachineRates | None:
        """Returns them; None where nobody has measured."""
        now = time.monotonic()
        if self._known is None and now - self._looked_at >= LOOK_SECONDS:
            self._looked_at = now
            self._known = known_rates(self._cache_dir)
        return self._known
