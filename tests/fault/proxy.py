"""A TCP proxy in a thread: passes bytes, or delays, holds back, or cuts them, as a test says."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import unquote

from sqlalchemy import make_url

RESET = struct.pack("ii", 1, 0)
CHUNK = 65536


class Proxy:
    """Listens on `port` of the loopback interface. upstream: (host, port), or the path of a Unix socket."""

    def __init__(self, upstream: tuple[str, int] | str) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)  # noqa: FBT003 - the standard library's signature
        self.port: int = self._listener.getsockname()[1]
        self.delay_seconds = 0.0
        self.drop_after: bytes | None = None
        self._upstream = upstream
        self._open = True
        self._flowing = asyncio.Event()
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self._started = threading.Event()

    def start(self) -> None:
        """Starts listening."""
        self._thread.start()
        assert self._started.wait(10)

    def stop(self) -> None:
        """Cuts everything and ends."""
        self.cut()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        assert not self._thread.is_alive()

    def cut(self) -> None:
        """Resets every connection and takes no more."""
        self._open = False
        self._call(self._reset_all())

    def mend(self) -> None:
        """Takes connections again, and lets bytes through."""
        self._open = True
        self._call(self._set(flowing=True))

    def reset(self) -> None:
        """Resets every connection; new ones are welcome."""
        self._call(self._reset_all())

    def black_hole(self) -> None:
        """Keeps connections, takes new ones, and passes nothing on: what a partition looks like from inside."""
        self._call(self._set(flowing=False))

    def lead_to(self, upstream: tuple[str, int]) -> None:
        """Resets every connection; new ones lead somewhere else."""
        self._upstream = upstream
        self.reset()

    def cut_at(self, words: bytes) -> None:
        """Resets the connection on which the client sends these words, once, after they have reached the server."""
        self.drop_after = words

    def _call(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._flowing.set()
        self._loop.add_reader(self._listener, self._accept)
        self._started.set()
        self._loop.run_forever()
        self._loop.remove_reader(self._listener)
        self._listener.close()
        self._loop.run_until_complete(self._wind_up())
        self._loop.close()

    async def _wind_up(self) -> None:
        """Lets every connection end by itself; no more come."""
        self._open, self.delay_seconds = False, 0.0
        self._flowing.set()
        while self._tasks:
            await self._reset_all()
            await asyncio.wait(self._tasks, timeout=0.01)
        await self._reset_all()
        await asyncio.sleep(0)  # a socket is closed in the round after its reset

    async def _set(self, *, flowing: bool) -> None:
        (self._flowing.set if flowing else self._flowing.clear)()

    async def _reset_all(self) -> None:
        for writer in list(self._writers):
            _reset(writer)
        self._writers.clear()

    def _accept(self) -> None:
        """Takes a connection and gives it a task, in one step of the loop: none is ever without an owner."""
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return  # it has gone again
        task = self._loop.create_task(self._serve(connection))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, connection: socket.socket) -> None:
        connection.setblocking(False)  # noqa: FBT003 - the standard library's signature
        reader, writer = await asyncio.open_connection(sock=connection)
        self._writers.add(writer)
        if not self._open:
            _reset(writer)
            return
        try:
            if isinstance(self._upstream, str):
                up_reader, up_writer = await asyncio.open_unix_connection(self._upstream)
            else:
                up_reader, up_writer = await asyncio.open_connection(*self._upstream)
        except OSError:
            _reset(writer)
            return
        self._writers.add(up_writer)
        await asyncio.gather(self._pass(reader, up_writer, watched=True), self._pass(up_reader, writer))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, watched: bool = False) -> None:
        with suppress(OSError, asyncio.CancelledError):
            while data := await reader.read(CHUNK):
                await self._flowing.wait()
                await asyncio.sleep(self.delay_seconds)
                writer.write(data)
                await writer.drain()
                if watched and self.drop_after is not None and self.drop_after in data:
                    self.drop_after = None
                    await asyncio.sleep(0.2)  # the server answers, and nobody hears it
                    await self._reset_all()
        writer.close()


def _reset(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    with suppress(OSError):
        if sock is not None and sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.transport.abort()


@contextmanager
def proxied(upstream: tuple[str, int] | str) -> Iterator[Proxy]:
    """Runs a proxy."""
    proxy = Proxy(upstream)
    proxy.start()
    try:
        yield proxy
    finally:
        proxy.stop()


@contextmanager
def proxied_database(url: str) -> Iterator[tuple[Proxy, str]]:
    """Runs a proxy in front of a PostgreSQL server; yields it and the database's URL by way of it."""
    parsed = make_url(url)
    folder = parsed.query.get("host")
    if isinstance(folder, str):
        upstream: tuple[str, int] | str = f"{unquote(folder)}/.s.PGSQL.{parsed.port or 5432}"
    else:
        upstream = (str(parsed.host), parsed.port or 5432)
    with proxied(upstream) as proxy:
        plain = parsed.set(host="127.0.0.1", port=proxy.port, query={})
        yield proxy, plain.render_as_string(hide_password=False)
