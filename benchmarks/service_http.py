"""A client that costs little beside the server it loads: HTTP/1.1 on kept connections, answers read to their end."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

RECEIVE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Load:
    """What a series of requests took, in seconds. latencies: sorted; wall: of the whole; processor: of this side."""

    latencies: list[float]
    wall: float
    processor: float = 0.0

    @property
    def rate(self) -> float:
        """Returns requests per second."""
        return len(self.latencies) / self.wall

    def quantile(self, share: float) -> float:
        """Returns the latency in seconds that this share of the requests did not exceed."""
        return self.latencies[min(int(len(self.latencies) * share), len(self.latencies) - 1)]


def get(path: str, **headers: str) -> bytes:
    """Returns a GET as it goes over the wire; headers: `If_None_Match` for If-None-Match."""
    lines = [f"GET {path} HTTP/1.1", "Host: localhost"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()


def post(path: str, body: object) -> bytes:
    """Returns a POST of a JSON body as it goes over the wire."""
    content = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content


class Connection:
    """One kept connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def ask(self, request: bytes, expected: int) -> bytes:
        """Returns the body; ends the benchmark on any other status than the expected one."""
        self._writer.write(request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        status, length = int(head[9:12]), 0
        for line in head.split(b"\r\n"):
            if line.lower().startswith(b"content-length:"):
                length = int(line[15:])
        body = await self._reader.readexactly(length) if length else b""
        if status != expected:
            raise SystemExit(f"{request[:80]!r} was answered {status}, not {expected}: {body[:400]!r}")
        return body

    def close(self) -> None:
        """Ends it."""
        self._writer.close()


async def connect(port: int) -> Connection:
    """Opens a connection to a service on this machine."""
    return Connection(*await asyncio.open_connection("127.0.0.1", port))


async def _drive(port: int, requests: Iterator[bytes], expected: int, connections: int) -> Load:
    latencies: list[float] = []

    async def work(connection: Connection) -> None:
        for request in requests:
            asked_at = time.perf_counter()
            await connection.ask(request, expected)
            latencies.append(time.perf_counter() - asked_at)

    opened = [await connect(port) for _ in range(connections)]
    started_at, processor_at = time.perf_counter(), time.process_time()
    await asyncio.gather(*(work(connection) for connection in opened))
    wall, processor = time.perf_counter() - started_at, time.process_time() - processor_at
    for connection in opened:
        connection.close()
    return Load(sorted(latencies), wall, processor)


def drive(port: int, requests: Iterator[bytes], *, expected: int, connections: int) -> Load:
    """Sends the requests over so many connections, each waiting for its answer, and returns what they took."""
    return asyncio.run(_drive(port, requests, expected, connections))


def read_json(port: int, path: str) -> Any:  # noqa: ANN401 - JSON of any form
    """Asks once."""

    async def ask() -> bytes:
        connection = await connect(port)
        body = await connection.ask(get(path), 200)
        connection.close()
        return body

    return json.loads(asyncio.run(ask()))


def download(port: int, path: str, go_on: Callable[[], bool] = lambda: True) -> tuple[int, float]:
    """Reads one answer to its end, or until it shall not go on; returns its bytes, head included, and the seconds."""
    received, started_at = 0, time.perf_counter()
    buffer = memoryview(bytearray(RECEIVE_BYTES))
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(get(path, Connection="close"))
        while go_on() and (count := connection.recv_into(buffer)):
            received += count
    return received, time.perf_counter() - started_at
