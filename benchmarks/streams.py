"""How soon do many readers of the live stream hear of an event, and what do they cost the API? Needs no model.

    python benchmarks/streams.py [--readers 1000] [--events 10] [--database-url postgresql+psycopg://...]

Starts an API of its own, opens the streams, writes one event a second and prints latencies, memory and processor time
beside their gates; exits with 1 where a gate is missed. Reader and API share the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import httpx
import psutil

from api.limits import raise_open_files
from store.jobs import Job, NewJob
from store.session import Database

MAX_P99_SECONDS = 1.0
MAX_RSS_BYTES = 80 * 10**6
START_SECONDS = 60
REQUEST = b"GET /v1/events/stream HTTP/1.1\r\nHost: localhost\r\n\r\n"
SPEC = {"model": {"source": "hub", "repo": "bench/none"}, "quantization": {"method": "rtn"}, "calibration": None}


@dataclass(slots=True)
class Readers:
    """What all readers together have seen."""

    count: int
    opened: int = 0
    all_open: asyncio.Event = field(default_factory=asyncio.Event)
    latencies: list[float] = field(default_factory=list)

    async def read(self, port: int) -> None:
        """Reads one stream until it is cancelled."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(REQUEST)
        try:
            while line := await reader.readline():
                if line == b"event: open\n":
                    self.opened += 1
                    if self.opened == self.count:
                        self.all_open.set()
                if line.startswith(b"data: ") and b"sent_at" in line:
                    self.latencies.append(time.time() - json.loads(line[6:])["payload"]["sent_at"])
        finally:
            writer.close()


def start_api(
    port: int, folder: Path, database_url: str, settings: Mapping[str, str] = MappingProxyType({})
) -> subprocess.Popen[bytes]:
    """Starts an API and returns once it answers. settings: more BITMILL_* variables."""
    environment = {**os.environ, "BITMILL_DATA_DIR": str(folder), "BITMILL_DATABASE_URL": database_url, **settings}
    command = [sys.executable, "-m", "uvicorn", "--factory", "api.app:create_app", "--port", str(port)]
    process = subprocess.Popen([*command, "--no-access-log"], env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        try:
            httpx.get(f"http://127.0.0.1:{port}/livez")
        except httpx.TransportError:
            time.sleep(0.1)
        else:
            return process
    process.kill()
    raise SystemExit("The API did not start.")


def claimed_job(database: Database) -> Job:
    """Returns a job that this process holds, for events to be written to."""
    with database.transaction() as repository:
        repository.add_job(NewJob(owner_key_id="local", spec=SPEC, calibration_set_id=None))
        job = repository.claim("bench", "default", 3600)
    if job is None:
        raise SystemExit("Another worker took the job: use a database of its own.")
    return job


def write_event(database: Database, job: Job) -> None:
    """Commits an event that says when it was written."""
    with database.transaction() as repository:
        repository.add_event(job.id, job.lease_token, "note", {"sent_at": time.time()})


async def measure(port: int, api: psutil.Process, database: Database, *, count: int, events: int) -> bool:
    """Runs the load, prints what was measured and returns whether the gates hold."""
    readers, rss = Readers(count), api.memory_info().rss
    tasks = []
    for number in range(count):
        tasks.append(asyncio.create_task(readers.read(port)))
        if number % 50 == 49:  # noqa: PLR2004 - below the listen queue of every system
            await asyncio.sleep(0.05)
    await asyncio.wait_for(readers.all_open.wait(), START_SECONDS)
    job, before = claimed_job(database), api.cpu_times()
    for _ in range(events):
        await asyncio.to_thread(write_event, database, job)
        await asyncio.sleep(1)
    after, grown = api.cpu_times(), api.memory_info().rss - rss
    for task in tasks:
        task.cancel()
    seen = sorted(readers.latencies)
    p50, p99 = seen[len(seen) // 2], seen[len(seen) * 99 // 100]
    cpu = after.user + after.system - before.user - before.system
    print(f"{len(seen)} of {count * events} arrived; p50 {p50:.3f} s, p99 {p99:.3f} s (gate {MAX_P99_SECONDS} s)")
    print(f"API: +{grown / 1e6:.0f} MB (gate {MAX_RSS_BYTES / 1e6:.0f} MB), {cpu:.1f} s of processor in {events} s")
    return len(seen) == count * events and p99 <= MAX_P99_SECONDS and grown <= MAX_RSS_BYTES


def main() -> int:
    """Returns 0 where the gates hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--readers", type=int, default=1000)
    parser.add_argument("--events", type=int, default=10)
    parser.add_argument("--database-url", help="of an empty database; an SQLite file by default")
    options = parser.parse_args()
    raise_open_files(options.readers)
    with tempfile.TemporaryDirectory() as name, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        url = options.database_url or f"sqlite:///{name}/bitmill.db"
        database = Database(url)
        database.upgrade()
        api = start_api(port, Path(name), url)
        try:
            load = measure(port, psutil.Process(api.pid), database, count=options.readers, events=options.events)
            return 0 if asyncio.run(load) else 1
        finally:
            api.terminate()
            api.wait()
            database.dispose()


if __name__ == "__main__":
    raise SystemExit(main())
