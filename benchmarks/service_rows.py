"""The rows of the service's load table: what each does to a running service, and the figures that come of it."""

from __future__ import annotations

import asyncio
import json
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import repeat
from pathlib import Path
from typing import Any

import psycopg
from service_http import Load, connect, download, drive, get, post, read_json
from service_stage import Stage, other_server, stage
from sqlalchemy import make_url

from store.artifacts import ArtifactStore
from store.jobs import Job, NewArtifact

CONNECTIONS = 16
WARM_UP = 8 * CONNECTIONS
PAGE = 50
PAGES_PER_PLACE = 4
DOWNLOADS = 4
POLL_SECONDS = 0.02
MILLISECONDS = 1000
ENGINE_BLOCKS = 8
REQUEST = {"model": {"source": "path", "root": "models", "path": "tiny"}, "method": "rtn", "group_size": 32}
FILTER = "state=cancelled&method=rtn"

# What differs from the pattern in the rows that fill the table; one half is cancelled.
FILLED = {
    "id": "'job_' || lpad(to_hex(number), 32, '0')",
    "state": "CASE WHEN number %% 2 = 0 THEN 'cancelled' ELSE 'queued' END",
    "created_at": "created_at - number * interval '20 milliseconds'",
    "finished_at": "CASE WHEN number %% 2 = 0 THEN created_at END",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One measured number. gate, goal: None where there is nothing to hold it against. rising: more is better."""

    row: str
    name: str
    unit: str
    value: float
    gate: float | None
    goal: float | None
    rising: bool = False

    @property
    def missed(self) -> bool:
        """Whether the gate is not met."""
        if self.gate is None:
            return False
        return self.value < self.gate if self.rising else self.value > self.gate


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much each row does."""

    requests: int
    rows: int
    readers: int
    events: int
    file_bytes: int
    jobs: int
    engine_seconds: float


def http_rows(folder: Path, size: Size) -> Iterator[Figure]:
    """Submits, polls and lists, on PostgreSQL with fsync on."""
    with stage(folder, scaled=True) as service:
        submit = post("/v1/jobs", REQUEST)
        # Connections to the database are opened and statements prepared, as in a service that has run for a minute.
        drive(service.port, repeat(submit, WARM_UP), expected=202, connections=CONNECTIONS)
        spent = _Processor(service)
        submitted = drive(service.port, repeat(submit, size.requests), expected=202, connections=CONNECTIONS)
        yield _rate("submit", submitted, gate=120, goal=300)
        yield _p99("submit", submitted, gate=80, goal=40)
        yield from spent.figures("submit", submitted)
        job = read_json(service.port, "/v1/jobs?page_size=1")["data"][0]
        path, etag = f"/v1/jobs/{job['id']}/progress", f'W/"{job["version"]}"'
        polls = (
            ("progress 304", get(path, If_None_Match=etag), 304, 1200, 3000),
            ("progress 200", get(path), 200, 700, 1500),
        )
        for row, poll, expected, gate, goal in polls:
            spent = _Processor(service)
            load = drive(service.port, repeat(poll, 4 * size.requests), expected=expected, connections=CONNECTIONS)
            yield _rate(row, load, gate=gate, goal=goal)
            yield from spent.figures(row, load)
        yield from _list(service, size, job["id"])


class _Processor:
    """What a load costs in processor time, from here on: a rate says little where the load itself is the limit."""

    def __init__(self, service: Stage) -> None:
        self._api = service.api
        self._before = self._seconds()

    def _seconds(self) -> float:
        times = self._api.cpu_times()
        return times.user + times.system

    def figures(self, row: str, load: Load) -> Iterator[Figure]:
        """Yields what the API spent on a request, and the share of one core that the load took. Neither is judged."""
        each = MILLISECONDS * (self._seconds() - self._before) / len(load.latencies)
        yield Figure(row=row, name="API's processor", unit="ms", value=each, gate=None, goal=None)
        share = 100 * load.processor / load.wall
        yield Figure(row=row, name="load's share of a core", unit="%", value=share, gate=None, goal=None)


def _rate(row: str, load: Load, *, gate: float, goal: float) -> Figure:
    return Figure(row=row, name="rate", unit="/s", value=load.rate, gate=gate, goal=goal, rising=True)


def _p99(row: str, load: Load, *, gate: float, goal: float) -> Figure:
    return Figure(row=row, name="p99", unit="ms", value=load.quantile(0.99) * MILLISECONDS, gate=gate, goal=goal)


def _list(service: Stage, size: Size, pattern: str) -> Iterator[Figure]:
    url = make_url(service.settings.database_url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url, autocommit=True) as connection:
        columns = [column.name for column in connection.execute("SELECT * FROM jobs LIMIT 0").description or ()]
        values = ", ".join(FILLED.get(name, name) for name in columns)
        fill = (
            f"INSERT INTO jobs ({', '.join(columns)}) SELECT {values} FROM jobs, generate_series(1, %(rows)s) AS number"  # noqa: S608 - the table's own columns
        )
        connection.execute(f"{fill} WHERE id = %(pattern)s".encode(), {"rows": size.rows, "pattern": pattern})
        connection.execute("VACUUM ANALYZE jobs")
        bounds = connection.execute("SELECT min(created_at), max(created_at) FROM jobs").fetchone()
    if bounds is None:
        raise SystemExit("The table is empty after it was filled.")
    latencies = asyncio.run(_pages(service.port, *bounds, places=max(size.requests // PAGES_PER_PLACE, 1)))
    yield _p99(f"list {PAGE} of {size.rows:,}", Load(sorted(latencies), sum(latencies)), gate=25, goal=10)


async def _pages(port: int, oldest: datetime, newest: datetime, *, places: int) -> list[float]:
    """Returns the seconds of some pages behind each of some places of the list, by their tokens."""
    place, latencies = random.Random(0), []  # noqa: S311 - places of a benchmark
    connection = await connect(port)
    for _ in range(places):
        before = (oldest + (newest - oldest) * place.random()).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        token = ""
        for _ in range(PAGES_PER_PLACE):
            asked_at = time.perf_counter()
            body = await connection.ask(get(f"/v1/jobs?{FILTER}&page_size={PAGE}&created_before={before}{token}"), 200)
            latencies.append(time.perf_counter() - asked_at)
            following = json.loads(body).get("next_page_token")
            if not following:
                break
            token = f"&page_token={following}"
    connection.close()
    return latencies


def stream_rows(_folder: Path, size: Size) -> Iterator[Figure]:
    """Live streams: the benchmark that they have of their own, on SQLite."""
    command = [sys.executable, str(Path(__file__).with_name("streams.py"))]
    counts = ["--readers", str(size.readers), "--events", str(size.events)]
    done = subprocess.run([*command, *counts], capture_output=True, text=True, check=False)
    p99, grown = re.search(r"p99 ([\d.]+) s", done.stdout), re.search(r"API: \+(-?\d+) MB", done.stdout)
    if p99 is None or grown is None:
        raise SystemExit(f"streams.py did not say what it measured: {done.stdout}{done.stderr}")
    if f"{size.readers * size.events} of " not in done.stdout:
        raise SystemExit(f"Events did not arrive: {done.stdout}")
    row = f"SSE, {size.readers} readers"
    yield Figure(row=row, name="p99", unit="ms", value=float(p99[1]) * MILLISECONDS, gate=1000, goal=300)
    yield Figure(row=row, name="memory", unit="MB", value=float(grown[1]), gate=80, goal=40)


def download_rows(folder: Path, size: Size) -> Iterator[Figure]:
    """One large file, and polls beside four downloads of it."""
    with stage(folder, scaled=False) as service:
        job = _published(service, folder, size.file_bytes)
        (file,) = read_json(service.port, f"/v1/jobs/{job.id}/artifacts")["data"]
        before = service.api.memory_info().rss
        received, seconds = download(service.port, file["content"])
        grown = service.api.memory_info().rss - before
        with other_server(folder / "data" / "artifacts", folder) as (name, port):
            (blob,) = (folder / "data" / "artifacts").rglob(file["sha256"])
            same, reference = download(port, f"/{blob.relative_to(folder / 'data' / 'artifacts')}")
        if min(received, same) < size.file_bytes:
            raise SystemExit(f"Of {size.file_bytes} bytes {received} came from the service and {same} from {name}.")
        row = f"download {size.file_bytes / 1e9:.2g} GB"
        share = 100 * reference / seconds
        gate = 40 if name == "nginx" else None
        yield Figure(row=row, name=f"of {name}", unit="%", value=share, gate=gate, goal=60, rising=True)
        yield Figure(row=row, name="memory", unit="MB", value=grown / 1e6, gate=32, goal=16)
        yield _polls_beside_downloads(service, job, file["content"], size)


def _published(service: Stage, folder: Path, file_bytes: int) -> Job:
    """Returns a job that has published one file of so many bytes."""
    path = folder / "large.bin"
    with path.open("wb") as file:
        block = random.Random(0).randbytes(1 << 20)  # noqa: S311 - filling
        for _ in range(-(-file_bytes // len(block))):
            file.write(block)
        file.truncate(file_bytes)
    store = ArtifactStore.from_settings(service.settings, service.database.reserve_blob)
    sha256, size_bytes = store.put_file(path)
    path.unlink()
    drive(service.port, iter([post("/v1/jobs", REQUEST)]), expected=202, connections=1)
    files = [NewArtifact(name="large.bin", sha256=sha256, size_bytes=size_bytes, media_type="application/octet-stream")]
    with service.database.transaction() as repository:
        job = repository.claim("bench", "default")
        if job is None:
            raise SystemExit("The job is not there to be claimed.")
        return repository.succeed(job.id, job.lease_token, files)


def _polls_beside_downloads(service: Stage, job: Job, content: str, size: Size) -> Figure:
    over = threading.Event()

    def pull() -> None:
        while not over.is_set():
            download(service.port, content, lambda: not over.is_set())

    def polls() -> Iterator[bytes]:
        for _ in range(size.requests):
            time.sleep(POLL_SECONDS)
            yield get(f"/v1/jobs/{job.id}/progress")

    with ThreadPoolExecutor(DOWNLOADS) as pool:
        for _ in range(DOWNLOADS):
            pool.submit(pull)
        try:
            load = drive(service.port, polls(), expected=200, connections=1)
        finally:
            over.set()
    return _p99(f"poll during {DOWNLOADS} downloads", load, gate=60, goal=30)


def start_rows(folder: Path, size: Size) -> Iterator[Figure]:
    """From the submit to the claim on a worker that has nothing else to do."""
    for name, scaled, gate, goal in (("Redis", True, 1000, 300), ("embedded", False, 3000, 1500)):
        with stage(folder / name, scaled=scaled, with_worker=True, block_seconds=0.01) as service:
            jobs = [_worked(service) for _ in range(size.jobs + 1)][1:]  # the first one waits for the worker's start
        waits = sorted((_at(job, "started_at") - _at(job, "created_at")) * MILLISECONDS for job in jobs)
        p95 = waits[min(int(len(waits) * 0.95), len(waits) - 1)]
        yield Figure(row=f"queued to running, {name}", name="p95", unit="ms", value=p95, gate=gate, goal=goal)


def overhead_rows(folder: Path, size: Size) -> Iterator[Figure]:
    """What the service adds to an engine's time, with an engine that only waits: claim, child, checkpoints, publish."""
    per_block = size.engine_seconds / ENGINE_BLOCKS
    with stage(folder, scaled=False, with_worker=True, block_seconds=per_block) as service:
        bare = _bare_engine(service)
        _worked(service)
        job = _worked(service)
    added = _at(job, "finished_at") - _at(job, "started_at") - bare
    row = f"overhead on an engine of {bare:.0f} s"
    yield Figure(row=row, name="seconds", unit="s", value=added, gate=None, goal=size.engine_seconds / 100)
    yield Figure(row=row, name="share", unit="%", value=100 * added / bare, gate=2, goal=1)


def _bare_engine(service: Stage) -> float:
    """Returns the seconds of the same stand-in without the service."""
    from tests.worker.fake_engine import quantize_checkpoint  # noqa: PLC0415 - only this row runs it

    with tempfile.TemporaryDirectory(dir=service.settings.cache_dir.parent) as name:
        work, started_at = Path(name) / "job" / "work", time.perf_counter()
        with redirect_stdout(sys.stderr):  # the stand-in talks, as libraries do
            quantize_checkpoint(
                service.settings.model_roots[0].path / "tiny",
                Path(name) / "artifact",
                None,
                None,
                work_dir=work,
                on_event=lambda _: None,
                should_stop=lambda: False,
                on_fault=lambda _: None,
                provenance={},
            )
        return time.perf_counter() - started_at


def _worked(service: Stage) -> dict[str, Any]:
    """Submits one job and returns it once it has succeeded."""
    drive(service.port, iter([post("/v1/jobs", REQUEST)]), expected=202, connections=1)
    job_id = read_json(service.port, "/v1/jobs?page_size=1")["data"][0]["id"]
    while True:
        job: dict[str, Any] = read_json(service.port, f"/v1/jobs/{job_id}")
        if job["state"] == "succeeded":
            return job
        if job["state"] in {"failed", "cancelled"}:
            raise SystemExit(f"The job {job['state']}: {json.dumps(job['error'])}")
        time.sleep(0.1)


def _at(job: dict[str, Any], name: str) -> float:
    return datetime.fromisoformat(job[name]).timestamp()


ROWS: dict[str, Callable[[Path, Size], Iterator[Figure]]] = {
    "http": http_rows,
    "streams": stream_rows,
    "downloads": download_rows,
    "starts": start_rows,
    "overhead": overhead_rows,
}


def measured(names: Sequence[str], size: Size) -> list[Figure]:
    """Runs the rows once, each in a folder of its own."""
    figures: list[Figure] = []
    for name in names:
        with tempfile.TemporaryDirectory(prefix="bitmill-bench-", ignore_cleanup_errors=True) as folder:
            figures += ROWS[name](Path(folder), size)
    return figures
