"""An S3 server that misbehaves: an HTTP proxy in front of a real one, which fails chosen requests in chosen ways."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

Fault = str
SLOW_SECONDS = 1.0


@dataclass(slots=True)
class Rule:
    """What happens to the next `times` requests that it matches."""

    matches: Callable[[str, str], bool]
    fault: Fault
    times: int


class FaultyS3(ThreadingHTTPServer):
    """`rule` says what goes wrong. faults: 500, 503, slow, cut (half of the body, then a reset), etag."""

    def __init__(self, upstream: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = urlsplit(upstream).netloc
        self._rules: list[Rule] = []
        self._lock = threading.Lock()
        self.seen: list[str] = []

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def rule(self, fault: Fault, times: int = 1, *, method: str = "PUT", having: str = "") -> None:
        """Fails the next requests of a method whose target has the words in it."""
        self._rules.append(Rule(lambda verb, target: verb == method and having in target, fault, times))

    @property
    def unused(self) -> int:
        """Returns how many failures have not happened yet."""
        return sum(rule.times for rule in self._rules)

    def fault_of(self, method: str, target: str) -> Fault | None:
        """Returns what is to go wrong with a request, and counts it."""
        with self._lock:
            self.seen.append(f"{method} {target}")
            for rule in self._rules:
                if rule.times > 0 and rule.matches(method, target):
                    rule.times -= 1
                    return rule.fault
        return None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FaultyS3

    def log_message(self, *_: object) -> None:
        """Says nothing."""

    def _pass(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.server.fault_of(self.command, self.path)
        if fault == "slow":
            time.sleep(SLOW_SECONDS)
        if fault == "cut":
            self._send_half(body)
            return
        if fault in {"500", "503"}:
            self._answer(int(fault), [], b"")
            return
        status, headers, content = self._ask(body)
        if fault == "etag":
            headers = [(name, '"00000000"' if name.lower() == "etag" else value) for name, value in headers]
        self._answer(status, headers, content)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _pass  # noqa: N815 - the base class calls them so

    def _ask(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection(self.server.upstream, timeout=30)
        # The Host stays what the client signed.
        headers = {name: value for name, value in self.headers.items() if name.lower() != "connection"}
        connection.request(self.command, self.path, body, headers)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return answer.status, answer.getheaders(), content

    def _send_half(self, body: bytes) -> None:
        """Gives the real server half of what it was promised, and the client a broken connection."""
        connection = http.client.HTTPConnection(self.server.upstream, timeout=30)
        connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        connection.send(body[: len(body) // 2])
        connection.close()
        self.close_connection = True
        self.connection.close()

    def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
        dropped = {"connection", "transfer-encoding", "server", "date"}
        length = [value for name, value in headers if name.lower() == "content-length"] or [str(len(content))]
        with suppress(OSError):
            self.send_response(status)
            for name, value in headers:
                if name.lower() not in {*dropped, "content-length"}:
                    self.send_header(name, value)
            self.send_header("Content-Length", length[0] if self.command == "HEAD" else str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)


@contextmanager
def faulty_s3(upstream: str) -> Iterator[FaultyS3]:
    """Runs one."""
    with FaultyS3(upstream) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()
