"""Polls the database for all readers at once and hands each what it asked for. It polls only while somebody reads.

Readers that come with a place of their own are first brought up to the hub's place, page by page, by their request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import structlog

from api.errors import TooManyStreamsError
from api.streams.frames import EventFrame, ProgressFrame
from api.streams.reader import Reader
from store.errors import StorageUnavailableError
from store.jobs import Job, StreamPage, StreamPlace
from store.repository import Repository
from store.session import Database

V = TypeVar("V")

PAGE = 200
PAUSE_AFTER_FAILURE_S = 2.0


class Hub:
    """One per application. All but the queries runs in the event loop."""

    def __init__(self, database: Database, *, poll_seconds: float, max_readers: int) -> None:
        self._database = database
        self._poll_seconds = poll_seconds
        self._max_readers = max_readers
        # Not the pool that routes run in: a few slow downloads must not hold up every stream.
        self._executor = ThreadPoolExecutor(2, thread_name_prefix="streams")
        self._readers: set[Reader] = set()
        self._admitted = 0
        self._poller: asyncio.Task[None] | None = None
        self._place: StreamPlace | None = None
        self._versions: dict[str, int] = {}
        self._closed = False
        self._log = structlog.get_logger("bitmill.api")

    @property
    def place(self) -> StreamPlace | None:
        """Up to where every joined reader has been served; None while nobody reads."""
        return self._place

    def admit(self) -> None:
        """Counts one more stream in; raises TooManyStreamsError where there is no room."""
        if self._admitted >= self._max_readers or self._closed:
            raise TooManyStreamsError(self._max_readers)
        self._admitted += 1

    def dismiss(self, reader: Reader) -> None:
        """Counts a stream out; the last one stops the poller."""
        self._admitted -= 1
        self._readers.discard(reader)
        if not self._admitted and self._poller is not None:
            self._poller.cancel()
            self._poller = self._place = None
            self._versions.clear()

    async def read(self, question: Callable[[Repository], V]) -> V:
        """Answers a question in one of the hub's threads; raises what the question raises."""

        def ask() -> V:
            with self._database.reading() as repository:
                return question(repository)

        return await asyncio.get_running_loop().run_in_executor(self._executor, ask)

    def join(self, reader: Reader, place: StreamPlace) -> bool:
        """Lets a reader that has everything up to a place hear of what comes; False where the hub is ahead of it."""
        if self._place is not None and self._place > place:
            return False
        reader.start_at(place)
        self._readers.add(reader)
        if self._closed:
            reader.end()
        elif self._poller is None:
            self._place = place
            self._poller = asyncio.create_task(self._poll(), name="stream-poller")
            self._poller.add_done_callback(self._poller_done)
        return True

    def close(self) -> None:
        """Ends every stream and takes no more, for a service that is about to end. In the event loop."""
        self._closed = True
        self._end_all()

    def release(self) -> None:
        """Gives the threads back, after `close`. In any thread."""
        self._executor.shutdown(cancel_futures=True)

    def _end_all(self) -> None:
        for reader in self._readers:
            reader.end()

    async def _poll(self) -> None:
        while True:
            try:
                page, held = await self.read(self._question())
            except StorageUnavailableError as error:
                self._log.warning("stream_poll_failed", reason=str(error))
                await asyncio.sleep(PAUSE_AFTER_FAILURE_S)
                continue
            self._serve(page, held)
            # A full page: more is waiting. Readers get a turn to empty their buffers all the same.
            await asyncio.sleep(0.001 if len(page.events) == PAGE else self._poll_seconds)

    def _question(self) -> Callable[[Repository], tuple[StreamPage, tuple[Job, ...]]]:
        place = self._place
        if place is None:
            raise RuntimeError("the poller runs without a place")
        return lambda repository: (repository.read_stream(place, PAGE), repository.list_held_jobs())

    def _serve(self, page: StreamPage, held: tuple[Job, ...]) -> None:
        events = [EventFrame(streamed) for streamed in page.events]
        changed = [ProgressFrame(job) for job in held if self._versions.get(job.id) != job.version]
        self._versions = {job.id: job.version for job in held}
        self._place = page.place
        if not events and not changed:
            return
        for reader in self._readers:
            for event in events:
                reader.offer_event(event)
            for progress in changed:
                reader.offer_progress(progress)

    def _poller_done(self, poller: asyncio.Task[None]) -> None:
        """A poller that broke ends every stream: clients connect again, and the first of them starts a new one."""
        if poller.cancelled():
            return
        self._log.error("stream_poller_broke", exc_info=poller.exception())
        self._poller = self._place = None
        self._end_all()
