"""Live streams: nothing lost, nothing twice, nobody else's; bounded for readers that take nothing."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.settings import ApiSettings
from api.streams.cursor import read_cursor, write_cursor
from api.streams.hub import Hub
from api.streams.reader import BUFFERED_FRAMES
from store.errors import StorageUnavailableError
from store.jobs import JobProgress, StreamPlace
from tests.api.service import Service, job_request, serve
from tests.api.test_security import bearer, make_key

PATH = "/v1/events/stream"


@dataclass(frozen=True, slots=True)
class Sent:
    """One server-sent event as a client sees it."""

    kind: str
    data: dict[str, Any]
    event_id: str | None


def parse(lines: Iterator[str]) -> Iterator[Sent]:
    """Reads events as the HTML standard says, as far as the service uses it."""
    fields: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(": ")
        if line == "" and "data" in fields:
            yield Sent(fields["event"], json.loads(fields["data"]), fields.get("id"))
        if line == "":
            fields = {}
        elif name:
            fields[name] = value


@contextmanager
def listening(service: Service, path: str = PATH, **headers: str) -> Iterator[Iterator[Sent]]:
    """Yields the events of a stream, `open` already taken off."""
    with service.client.stream("GET", path, headers=headers) as response:
        assert response.status_code == 200, response.read()
        assert response.headers["content-type"].startswith("text/event-stream")
        events = parse(response.iter_lines())
        assert next(events).kind == "open"
        yield events


def events_of(sent: Iterator[Sent], count: int) -> list[Sent]:
    """Returns the next durable events; progress between them is left out."""
    found: list[Sent] = []
    for event in sent:
        if event.kind == "event":
            found.append(event)
        if len(found) == count:
            break
    return found


def test_a_stream_tells_of_all_jobs_from_now_on(service_on_each: Service):
    """Events as they are written, each with an id; how far a running job is comes between them."""
    service_on_each.submit()
    with listening(service_on_each) as sent:
        job_id = service_on_each.submit()["id"]
        (submitted,) = events_of(sent, 1)
        assert (submitted.data["job_id"], submitted.data["kind"]) == (job_id, "submitted")
        claimed = service_on_each.claim()
        assert events_of(sent, 1)[0].data["job_id"] == claimed.id
        service_on_each.progress(claimed, JobProgress(fraction=0.5, blocks_done=1, blocks_total=2))
        progress = next(event for event in sent if event.kind == "progress" and event.data["fraction"])
        assert (progress.data["id"], progress.data["fraction"], progress.event_id) == (claimed.id, 0.5, None)


def test_a_client_that_comes_again_misses_nothing(service_on_each: Service):
    """With the last id that it saw, in the header or in the query, whatever happened meanwhile."""
    with listening(service_on_each) as sent:
        service_on_each.submit()
        last = events_of(sent, 1)[0].event_id
    assert last is not None
    missed = [service_on_each.submit()["id"] for _ in range(3)]
    with listening(service_on_each, **{"Last-Event-ID": last}) as sent:
        assert [event.data["job_id"] for event in events_of(sent, 3)] == missed
        late = service_on_each.submit()["id"]
        assert events_of(sent, 1)[0].data["job_id"] == late
    with listening(service_on_each, f"{PATH}?after={last}") as sent:
        assert [event.data["job_id"] for event in events_of(sent, 4)] == [*missed, late]


def test_a_stream_of_named_jobs_leaves_the_others_out(service: Service):
    first, second, third = (service.submit()["id"] for _ in range(3))
    with listening(service, f"{PATH}?job={first}&job={third}") as sent:
        for job_id in (second, third, first):
            service.client.post(f"/v1/jobs/{job_id}:cancel").raise_for_status()
        assert {event.data["job_id"] for event in events_of(sent, 2)} == {first, third}


def test_the_stream_of_one_job_is_its_history_and_goes_on(service_on_each: Service):
    """Its ids are the events' numbers; with one, it goes on behind it."""
    job_id = service_on_each.submit()["id"]
    path = f"/v1/jobs/{job_id}/events/stream"
    job = service_on_each.claim()
    with listening(service_on_each, path) as sent:
        assert [event.event_id for event in events_of(sent, 2)] == ["1", "2"]
        service_on_each.submit()
        service_on_each.succeed(job, {"config.json": b"{}"})
        (last,) = events_of(sent, 1)
        assert (last.event_id, last.data["kind"], last.data["payload"]) == ("3", "succeeded", {"state": "succeeded"})
    with listening(service_on_each, path, **{"Last-Event-ID": "2"}) as sent:
        assert events_of(sent, 1)[0] == last
    assert service_on_each.client.get("/v1/jobs/job_0/events/stream").status_code == 404


@pytest.mark.parametrize("given", ["x", "!!", "AAAA", "é", write_cursor(StreamPlace(position=1, job_id="A", seq=1))])
def test_an_id_that_no_stream_gave_is_refused(module_service: Service, given: str):
    refused = module_service.client.get(PATH, params={"after": given})
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid_last_event_id")


def test_an_id_of_another_databases_future_starts_anew(service: Service):
    """After a restore, positions may lie below those that clients know: they are told to read everything again."""
    ahead = write_cursor(StreamPlace(position=10**15, job_id="", seq=0))
    with service.client.stream("GET", PATH, headers={"Last-Event-ID": ahead}) as response:
        sent = parse(response.iter_lines())
        assert [next(sent).kind, next(sent).kind] == ["reset", "open"]
        service.submit()
        assert events_of(sent, 1)[0].data["seq"] == 1


def test_a_place_survives_the_way_through_a_client():
    place = StreamPlace(position=2**53, job_id="job_0a", seq=7)
    assert read_cursor(write_cursor(place)) == place


def test_owners_hear_of_their_own_jobs_only(settings: ApiSettings):
    """Also where the other's job is named, and of the past as of the present; the other's own stream is not found."""
    settings = settings.model_copy(update={"host": "0.0.0.0"})  # noqa: S104 - the rule for reachable bindings
    mine, theirs = (bearer(make_key(settings, "jobs:read", "jobs:write")) for _ in range(2))
    with serve(settings) as service:
        hidden = service.client.post("/v1/jobs", json=job_request(), headers=theirs).json()["id"]
        assert service.client.get(f"/v1/jobs/{hidden}/events/stream", headers=mine).status_code == 404
        start = write_cursor(StreamPlace(position=0, job_id="", seq=0))
        own: list[str] = []
        for path in (f"{PATH}?after={start}", PATH):
            with listening(service, path, **mine) as sent:
                service.client.post("/v1/jobs", json=job_request(), headers=theirs)
                own.append(service.client.post("/v1/jobs", json=job_request(), headers=mine).json()["id"])
                assert events_of(sent, 1)[0].data["job_id"] == own[-1]
        with listening(service, f"{PATH}?job={hidden}&job={own[0]}&after={start}", **mine) as sent:
            assert events_of(sent, 1)[0].data["job_id"] == own[0]
        assert service.client.get(PATH).status_code == 401


def test_silence_is_broken_by_heartbeats_and_ends_with_the_streams_life(settings: ApiSettings):
    """Heartbeats carry the place, so that a quiet client does not come back with an old one; the end is a clean one."""
    quick = settings.model_copy(update={"stream_heartbeat_seconds": 0.02, "stream_life_seconds": 1.0})
    with serve(quick) as service:
        lines = list(service.client.get(PATH).iter_lines())
    beats = [line for line in lines if line.startswith("id: ")]
    assert len(beats) >= 4
    assert len(set(beats)) == 1


def test_there_is_room_for_so_many_and_no_more(settings: ApiSettings):
    """One stream too many is a problem that says so; when one ends there is room again."""
    with serve(settings.model_copy(update={"max_streams": 2})) as service:
        with listening(service), listening(service):
            refused = service.client.get(PATH)
            assert (refused.status_code, refused.json()["code"]) == (503, "too_many_streams")
            assert refused.headers["retry-after"]
        deadline = time.monotonic() + 60
        while True:
            with service.client.stream("GET", PATH) as response:
                if response.status_code == 200:
                    break
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert service.services.hub._admitted <= 2


def test_a_reader_that_takes_nothing_is_dropped(settings: ApiSettings):
    """And holds up nobody: others hear everything meanwhile."""
    quick = settings.model_copy(update={"stream_send_seconds": 1.0, "stream_poll_seconds": 0.02})
    with serve(quick) as service:
        service.submit()
        job = service.claim()
        address = (service.client.base_url.host, service.client.base_url.port)
        with socket.socket() as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            deaf.connect(address)
            deaf.sendall(f"GET {PATH} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            wait_until(lambda: len(service.services.hub._readers) == 1)
            with listening(service) as sent:
                payload = {"text": "x" * 60_000}
                for _ in range(60):
                    with service.services.database.transaction() as repository:
                        repository.add_event(job.id, job.lease_token, "note", payload)
                    assert len(events_of(sent, 1)) == 1
                wait_until(lambda: len(service.services.hub._readers) == 1)


def test_many_readers_share_one_poller(settings: ApiSettings):
    """Each of many hears of an event; the number of queries does not depend on theirs."""
    with serve(settings) as service, httpx.Client(base_url=service.client.base_url, timeout=30) as client:
        streams = [client.stream("GET", PATH) for _ in range(50)]
        readers = [parse(stream.__enter__().iter_lines()) for stream in streams]
        for reader in readers:
            assert next(reader).kind == "open"
        job_id = service.submit()["id"]
        assert {events_of(reader, 1)[0].data["job_id"] for reader in readers} == {job_id}
        assert len(service.services.hub._readers) == 50
        for stream in streams:
            stream.__exit__(None, None, None)
        wait_until(lambda: service.services.hub.place is None)


def test_a_burst_longer_than_a_buffer_reaches_a_reader_that_keeps_up(service: Service):
    service.submit()
    job = service.claim()
    count = BUFFERED_FRAMES + 100
    with listening(service) as sent:
        with service.services.database.transaction() as repository:
            for number in range(count):
                repository.add_event(job.id, job.lease_token, "note", {"number": number})
        notes = events_of(sent, count)
    assert [event.data["payload"]["number"] for event in notes] == list(range(count))


def test_a_stream_goes_on_after_the_database_was_away(service: Service, monkeypatch: pytest.MonkeyPatch):
    """What happened meanwhile is told late, not lost."""

    async def refuse(_hub: Hub, _question: object) -> None:
        raise StorageUnavailableError("The database", "it is away")

    monkeypatch.setattr("api.streams.hub.PAUSE_AFTER_FAILURE_S", 0.05)
    with listening(service) as sent:
        with monkeypatch.context() as away:
            away.setattr(Hub, "read", refuse)
            time.sleep(0.6)
            job_id = service.submit()["id"]
            assert service.client.get(PATH, headers={"Last-Event-ID": "MC4uMA"}).status_code == 503
        assert events_of(sent, 1)[0].data["job_id"] == job_id


def test_a_service_that_is_asked_to_end_ends_its_streams(settings: ApiSettings, tmp_path: Path):
    """Open streams do not hold up the end of the process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        "BITMILL_DATA_DIR": str(settings.data_dir),
        "BITMILL_DATABASE_URL": settings.database_url,
        "BITMILL_MODEL_ROOTS": f"models={settings.model_roots[0].path}",
    }
    command = [sys.executable, "-m", "uvicorn", "--factory", "api.app:create_app", "--port", str(port)]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL, cwd=Path(__file__).parents[2])
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            wait_until(lambda: _answers(client))
            with client.stream("GET", PATH) as response:
                lines = response.iter_lines()
                assert next(lines).startswith("retry")
                process.terminate()
                list(lines)
        # uvicorn ends by the signal that it was sent, once it has cleaned up.
        assert process.wait(60) in {0, -15}
    finally:
        process.kill()


def _answers(client: httpx.Client) -> bool:
    try:
        return client.get("/livez").status_code == 200
    except httpx.TransportError:
        return False


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Waits for a condition that is about to hold."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
