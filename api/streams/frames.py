"""Writes server-sent events (HTML, section 9.2). A frame is made once and shared by all its readers."""

from __future__ import annotations

from functools import cached_property

from api.streams.cursor import write_cursor
from api.views import progress_view, streamed_event_view
from store.jobs import Job, JobEvent, StreamedEvent, StreamPlace

RETRY_MILLISECONDS = 2000


def frame(kind: str, data: str, frame_id: object = None) -> bytes:
    """Returns one event; data: a single line."""
    identity = "" if frame_id is None else f"id: {frame_id}\n"
    return f"{identity}event: {kind}\ndata: {data}\n\n".encode()


def opening(frame_id: object) -> bytes:
    """Returns what every stream begins with: how long to wait before connecting again, and where the stream stands."""
    return f"retry: {RETRY_MILLISECONDS}\n".encode() + frame("open", "{}", frame_id)


def heartbeat(place: StreamPlace | None = None) -> bytes:
    """Returns a line that no client shows. With a place, one that connects again reads on from there."""
    return b": \n\n" if place is None else f": \nid: {write_cursor(place)}\n\n".encode()


RESET = frame("reset", "{}")
"""Tells that the place asked for is not of this database's history: read the state anew."""


def job_event_frame(event: JobEvent) -> bytes:
    """Returns an event of a stream of one job, whose ids are seqs."""
    return frame("event", streamed_event_view(event).model_dump_json(), event.seq)


class EventFrame:
    """A durable event in both spellings of its id."""

    def __init__(self, streamed: StreamedEvent) -> None:
        self.streamed = streamed

    @cached_property
    def by_cursor(self) -> bytes:
        """For streams of many jobs."""
        return frame(
            "event", streamed_event_view(self.streamed.event).model_dump_json(), write_cursor(self.streamed.place)
        )

    @cached_property
    def by_seq(self) -> bytes:
        """For the stream of one job."""
        return job_event_frame(self.streamed.event)


class ProgressFrame:
    """How far a running job is; not durable, so it has no id, and only the newest one of a job is worth reading."""

    def __init__(self, job: Job) -> None:
        self.job = job

    @cached_property
    def content(self) -> bytes:
        """The bytes."""
        return frame("progress", progress_view(self.job).model_dump_json())
