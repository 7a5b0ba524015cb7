"""One connected reader: what it asked for, and a bounded buffer of what it has not taken yet."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Collection

from api.streams.frames import EventFrame, ProgressFrame
from store.jobs import StreamPlace

BUFFERED_FRAMES = 512
"""A reader that falls behind by more is dropped; it connects again and reads on from the database."""


class Reader:
    """Filled by the hub, emptied by the reader's own request; both run in the event loop."""

    def __init__(self, owner: str | None, job_ids: Collection[str] = (), single_seq: int | None = None) -> None:
        """owner: whose jobs it sees, None for all. job_ids: which of them, empty for all.

        single_seq: for the stream of one job, the last seq that it knows; its ids are then seqs.
        """
        self._owner = owner
        self._job_ids = frozenset(job_ids)
        self._seq = single_seq
        self._place: StreamPlace | None = None
        self._frames: deque[bytes] = deque()
        self._arrived = asyncio.Event()
        self.ended = False
        """Nothing more comes: the service ends, or the reader fell behind."""

    @property
    def single(self) -> bool:
        """Whether it follows one job, by seq."""
        return self._seq is not None

    def start_at(self, place: StreamPlace) -> None:
        """Says that it has everything up to a place."""
        self._place = place

    def start_behind(self, seq: int) -> None:
        """Says that it has every event of its one job up to a seq."""
        self._seq = seq

    def wants(self, owner: str, job_id: str) -> bool:
        """Whether a job is one that it sees and asked for."""
        return self._owner in {None, owner} and (not self._job_ids or job_id in self._job_ids)

    def offer_event(self, event: EventFrame) -> None:
        """Takes an event unless it is known already."""
        streamed = event.streamed
        if not self.wants(streamed.owner_key_id, streamed.event.job_id):
            return
        if self._seq is not None:
            if streamed.event.seq > self._seq:
                self._seq = streamed.event.seq
                self._add(event.by_seq)
        elif self._place is None or streamed.place > self._place:
            self._add(event.by_cursor)

    def offer_progress(self, progress: ProgressFrame) -> None:
        """Takes a job's progress."""
        if self.wants(progress.job.owner_key_id, progress.job.id):
            self._add(progress.content)

    def end(self) -> None:
        """Closes the stream and forgets what is buffered."""
        self.ended = True
        self._frames.clear()
        self._arrived.set()

    async def take(self, seconds: float) -> bytes:
        """Returns all that has arrived, empty where nothing has within the time or the stream has ended."""
        if not self._frames and not self.ended:
            try:
                await asyncio.wait_for(self._arrived.wait(), seconds)
            except TimeoutError:
                return b""
        self._arrived.clear()
        content = b"".join(self._frames)
        self._frames.clear()
        return content

    def _add(self, content: bytes) -> None:
        if self.ended:
            return
        if len(self._frames) >= BUFFERED_FRAMES:
            self.end()
            return
        self._frames.append(content)
        self._arrived.set()
