"""Sends one stream: what the reader missed, then what arrives, with heartbeats in between, until either side ends it.

Every write has a time limit, so that a reader that takes nothing is dropped with what is buffered for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial

import structlog
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from api.streams.cursor import write_cursor
from api.streams.frames import RESET, EventFrame, heartbeat, job_event_frame, opening
from api.streams.hub import PAGE, Hub
from api.streams.reader import Reader
from store.jobs import JobEvent, StreamPage, StreamPlace
from store.repository import Repository

HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-store",
    # nginx would hold events back until its buffer is full.
    "X-Accel-Buffering": "no",
}


class ReaderTooSlowError(Exception):
    """The reader took nothing within the time limit of a write."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamTimes:
    """Seconds. life: of one stream; then the client connects again, and its key is looked at again."""

    heartbeat: float
    send: float
    life: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a stream is asked for. owner: None for all. place, seq: where to read on; both None: from now.

    seq is for the stream of one job, place for any other.
    """

    owner: str | None
    job_ids: tuple[str, ...] = ()
    place: StreamPlace | None = None
    seq: int | None = None


class EventStream(Response):
    """An answer that goes on until someone ends it."""

    def __init__(self, hub: Hub, times: StreamTimes, wanted: Wanted) -> None:
        self.status_code = 200
        self.background = None
        self.init_headers(HEADERS)
        self._hub = hub
        self._times = times
        self._wanted = wanted
        self._reader = Reader(wanted.owner, wanted.job_ids, wanted.seq)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Runs the stream to its end; before its first byte it may raise TooManyStreamsError or a store's error."""
        self._hub.admit()
        watch = asyncio.create_task(self._watch(receive))
        try:
            await self._run(send)
        except ReaderTooSlowError:
            structlog.get_logger("bitmill.api").info("stream_dropped", path=scope["path"])
        finally:
            watch.cancel()
            self._hub.dismiss(self._reader)

    async def _run(self, send: Send) -> None:
        async with aclosing(self._contents()) as contents:
            # What cannot be read is found out before an answer has begun.
            first = await anext(contents)
            await self._send(
                send, {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
            )
            await self._send(send, {"type": "http.response.body", "body": first, "more_body": True})
            async for content in contents:
                await self._send(send, {"type": "http.response.body", "body": content, "more_body": True})
        await self._send(send, {"type": "http.response.body", "body": b"", "more_body": False})

    async def _send(self, send: Send, message: Message) -> None:
        try:
            async with asyncio.timeout(self._times.send):
                await send(message)
        except TimeoutError as error:
            raise ReaderTooSlowError from error

    async def _watch(self, receive: Receive) -> None:
        """Ends the stream when the client is gone, which a stream without news would not notice."""
        while (await receive())["type"] != "http.disconnect":
            pass
        self._reader.end()

    async def _contents(self) -> AsyncGenerator[bytes]:
        clock = asyncio.get_running_loop().time
        deadline = clock() + self._times.life
        catch_up = self._catch_up() if self._wanted.seq is None else self._catch_up_one(self._wanted.seq)
        async for content in catch_up:
            yield content
        while not self._reader.ended and clock() < deadline:
            content = await self._reader.take(min(self._times.heartbeat, deadline - clock()))
            if content:
                yield content
            elif not self._reader.ended:
                yield heartbeat(None if self._reader.single else self._hub.place)

    async def _catch_up(self) -> AsyncGenerator[bytes]:
        """Yields the events between the place that was asked for and the hub's, and joins the hub."""
        wanted, behind = self._wanted, self._wanted.place is not None
        end = None if behind else self._hub.place
        if end is None:
            end = await self._hub.read(Repository.stream_end)
        place = wanted.place or end
        if place.position > end.position:
            yield RESET
            place = end
        yield opening(write_cursor(place))
        while behind or not self._hub.join(self._reader, place):
            page = await self._hub.read(partial(read_stream, place, wanted))
            if page.events:
                yield b"".join(EventFrame(streamed).by_cursor for streamed in page.events)
            place, behind = page.place, len(page.events) == PAGE

    async def _catch_up_one(self, seq: int) -> AsyncGenerator[bytes]:
        """Yields the events of the one job behind seq, and joins the hub."""
        yield opening(seq)
        while True:
            end, events = await self._hub.read(partial(read_job, seq, self._wanted))
            if events:
                yield b"".join(job_event_frame(event) for event in events)
                seq = events[-1].seq
            self._reader.start_behind(seq)
            if len(events) < PAGE and self._hub.join(self._reader, end):
                return


def read_stream(place: StreamPlace, wanted: Wanted, repository: Repository) -> StreamPage:
    """Returns the next events of many jobs."""
    return repository.read_stream(place, PAGE, owner=wanted.owner, job_ids=wanted.job_ids)


def read_job(seq: int, wanted: Wanted, repository: Repository) -> tuple[StreamPlace, tuple[JobEvent, ...]]:
    """Returns the next events of one job, and a place that nothing else of the job lies before."""
    (job_id,) = wanted.job_ids
    end = repository.stream_end()
    return end, repository.list_events(job_id, seq, PAGE, owner=wanted.owner)
