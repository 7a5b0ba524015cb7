"""Says which pooled connections must be asked whether they live before they are used.

One that answered a moment ago is trusted: to ask at each use would be a round trip for each. Once any connection of a
database turns out to be dead, none is trusted that has not answered since.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

from sqlalchemy import event
from sqlalchemy.exc import InvalidatePoolError

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine, ExceptionContext
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.pool import ConnectionPoolEntry

TRUSTED_SECONDS = 1.0
ANSWERED_AT = "answered_at"


class Liveness:
    """What is known of the connections of all pools of one database."""

    def __init__(self) -> None:
        self._lost_at = -math.inf

    def watch(self, engine: Engine) -> None:
        """Follows an engine's pool."""

        def ask(connection: DBAPIConnection, entry: ConnectionPoolEntry, _proxy: object) -> None:
            """Makes the pool open a new connection where this one is dead, and so everyone of its age."""
            if self._trusted(entry):
                return
            try:
                engine.dialect.do_ping(connection)
            except engine.dialect.loaded_dbapi.Error as error:
                self._lost_at = time.monotonic()
                raise InvalidatePoolError from error

        event.listen(engine, "connect", self._note)
        event.listen(engine, "checkin", self._note)
        event.listen(engine, "checkout", ask)
        event.listen(engine, "handle_error", self._heed)

    def _note(self, _connection: DBAPIConnection | None, entry: ConnectionPoolEntry) -> None:
        entry.info[ANSWERED_AT] = time.monotonic()

    def _heed(self, context: ExceptionContext) -> None:
        if context.is_disconnect:
            self._lost_at = time.monotonic()

    def _trusted(self, entry: ConnectionPoolEntry) -> bool:
        answered_at: float = entry.info.get(ANSWERED_AT, -math.inf)
        return answered_at > self._lost_at and time.monotonic() - answered_at < TRUSTED_SECONDS
