"""A small hub on this machine: serves a model and a data set from folders, and takes uploads, as its client asks."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
BRANCH = "main"
REPO = "acme/tiny"
GATED_REPO = "acme/gated"
BROKEN_REPO = "acme/broken"
DATASET_REPO = "acme/words"
FORBIDDEN_OWNER = "others"
RANGE = re.compile(r"bytes=(\d+)-(\d+)")


@dataclass(frozen=True, slots=True)
class Answer:
    """What the hub sends back."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


class FakeHub(ThreadingHTTPServer):
    """Serves `folder` as REPO; knows a gated and a broken model beside it, and remembers what it was asked for.

    dataset: served as DATASET_REPO. claimed_bytes: what it says that the weights have, where that is not the truth.
    ranges: whether it gives a part of a file where one is asked for. parts: those that were, as name and bytes.
    cut_parts: how many of them break off before anything of them came.
    """

    def __init__(self, folder: Path, dataset: Path | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self._folder = folder
        self._dataset = dataset
        self.requests: list[str] = []
        self.tokens: set[str | None] = set()
        self.uploaded: dict[str, bytes] = {}
        self.created: list[dict[str, Any]] = []
        self.failing_writes = 0
        self.claimed_bytes: int | None = None
        self.ranges = True
        self.parts: list[tuple[str, int]] = []
        self.cut_parts = 0
        self._objects: dict[str, bytes] = {}

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def downloaded(self) -> set[str]:
        """Returns the names of the files that were asked for whole."""
        return {request.rsplit("/", 1)[1] for request in self.requests if request.startswith("GET /acme/")}

    def answer(self, path: str) -> Answer:
        match unquote(path).strip("/").split("/"):
            case ["api", "models", owner, name, *rest]:
                return self._refusal(f"{owner}/{name}", rest[1] if len(rest) > 1 else BRANCH) or self._facts(rest)
            case ["api", "datasets", owner, name, *rest]:
                return self._dataset_facts(f"{owner}/{name}", rest[1] if len(rest) > 1 else BRANCH)
            case ["datasets", "acme", "words", "resolve", _, *parts] if self._dataset is not None:
                data = self._dataset.joinpath(*parts).read_bytes()
                return Answer(200, data, {"X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha256(data).hexdigest()}"'})
            case [owner, name, "resolve", _, file] if f"{owner}/{name}" == REPO:
                path = self._folder / file
                data = path.read_bytes()
                headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha256(data).hexdigest()}"'}
                return Answer(200, data, {**headers, "X-Linked-Size": str(self._size(path))})
            case _:
                return Answer(404, headers={"X-Error-Code": "EntryNotFound"})

    def part(self, path: str, span: re.Match[str]) -> Answer | None:
        """Answers for a part of a file; None where the connection breaks instead."""
        first, last = int(span[1]), int(span[2])
        self.parts.append((path.rsplit("/", 1)[1], last + 1 - first))
        if self.cut_parts:
            self.cut_parts -= 1
            return None
        whole = self.answer(path)
        if whole.status != HTTPStatus.OK or not self.ranges:
            return whole
        headers = whole.headers | {"Content-Range": f"bytes {first}-{last}/{len(whole.body)}"}
        return Answer(HTTPStatus.PARTIAL_CONTENT, whole.body[first : last + 1], headers)

    def take(self, path: str, body: bytes) -> Answer:
        """Answers a write the way the hub's client asks for it: weights as LFS objects, small files in the commit."""
        if self.failing_writes:
            self.failing_writes -= 1
            return Answer(500)
        match unquote(path).strip("/").split("/"):
            case ["api", "repos", "create"]:
                answer = self._create(json.loads(body))
            case ["api", "models", _, _, "preupload", _]:
                answer = _json({"files": [_upload_mode(file["path"]) for file in json.loads(body)["files"]]})
            case [_, name, "info", "lfs", "objects", "batch"] if name.endswith(".git"):
                places = [self._place(item) for item in json.loads(body)["objects"]]
                answer = _json({"transfer": "basic", "objects": places})
            case ["lfs", oid]:
                assert hashlib.sha256(body).hexdigest() == oid
                self._objects[oid] = body
                answer = Answer(200)
            case ["api", "models", owner, name, "commit", _]:
                answer = self._commit(f"{owner}/{name}", body)
            case ["api", "validate-yaml"]:
                answer = _json({"errors": [], "warnings": []})
            case _:
                answer = Answer(404)
        return answer

    def _create(self, wish: dict[str, Any]) -> Answer:
        if wish.get("organization") == FORBIDDEN_OWNER:
            return Answer(403, json.dumps({"error": "You may not write here."}).encode())
        self.created.append(wish)
        return _json({"url": f"{self.endpoint}/{wish.get('organization')}/{wish['name']}"})

    def _place(self, item: dict[str, Any]) -> dict[str, Any]:
        return {**item, "actions": {"upload": {"href": f"{self.endpoint}/lfs/{item['oid']}"}}}

    def _commit(self, repo: str, body: bytes) -> Answer:
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                self.uploaded[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                self.uploaded[value["path"]] = self._objects[value["oid"]]
        return _json({"success": True, "commitOid": COMMIT, "commitUrl": f"{self.endpoint}/{repo}/commit/{COMMIT}"})

    def _refusal(self, repo: str, revision: str) -> Answer | None:
        if repo == BROKEN_REPO:
            return Answer(503)
        if repo == GATED_REPO:
            return Answer(403, headers={"X-Error-Code": "GatedRepo"})
        if repo != REPO:
            return Answer(401, headers={"X-Error-Code": "RepoNotFound"})
        if revision not in {BRANCH, COMMIT}:
            return Answer(404, headers={"X-Error-Code": "RevisionNotFound"})
        return None

    def _dataset_facts(self, repo: str, revision: str) -> Answer:
        if repo == GATED_REPO:
            return Answer(403, headers={"X-Error-Code": "GatedRepo"})
        if repo == BROKEN_REPO:
            return Answer(503)
        if repo != DATASET_REPO or self._dataset is None:
            return Answer(401, headers={"X-Error-Code": "RepoNotFound"})
        if revision not in {BRANCH, COMMIT}:
            return Answer(404, headers={"X-Error-Code": "RevisionNotFound"})
        files = (
            path.relative_to(self._dataset).as_posix() for path in sorted(self._dataset.rglob("*")) if path.is_file()
        )
        siblings = [{"rfilename": file} for file in files]
        return Answer(200, json.dumps({"id": repo, "sha": COMMIT, "siblings": siblings}).encode())

    def _size(self, path: Path) -> int:
        claimed = self.claimed_bytes if path.suffix == ".safetensors" else None
        return path.stat().st_size if claimed is None else claimed

    def _facts(self, rest: list[str]) -> Answer:
        paths = sorted(self._folder.iterdir())
        if rest[:1] == ["tree"]:
            tree = [
                {"type": "file", "oid": hashlib.sha256(path.read_bytes()).hexdigest(), "size": self._size(path)}
                | {"path": path.name}
                for path in paths
            ]
            return Answer(200, json.dumps(tree).encode())
        siblings = [{"rfilename": path.name} for path in paths]
        return Answer(200, json.dumps({"id": REPO, "sha": COMMIT, "siblings": siblings}).encode())


def _json(value: object) -> Answer:
    return Answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})


def _upload_mode(path: str) -> dict[str, Any]:
    mode = "lfs" if path.endswith(".safetensors") else "regular"
    return {"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": None}


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: FakeHub

    def handle(self) -> None:
        # Whoever asked may have heard enough before the end.
        with suppress(BrokenPipeError, ConnectionResetError):
            super().handle()

    def do_GET(self) -> None:
        self._serve()

    def do_HEAD(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._take()

    def do_PUT(self) -> None:
        self._take()

    def _take(self) -> None:
        path = urlsplit(self.path).path
        self.server.requests.append(f"{self.command} {path}")
        if not path.startswith("/lfs/"):  # such an address carries its own right
            self.server.tokens.add(self.headers.get("Authorization"))
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b"".join(iter(self._chunk, b""))
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        self._send(self.server.take(path, body))

    def _chunk(self) -> bytes:
        size = int(self.rfile.readline(), 16)
        data = self.rfile.read(size)
        self.rfile.readline()
        return data

    def log_message(self, *_: object) -> None:
        """Says nothing."""

    def _serve(self) -> None:
        path = urlsplit(self.path).path
        self.server.tokens.add(self.headers.get("Authorization"))
        span = RANGE.fullmatch(self.headers.get("Range", ""))
        if span is None:
            self.server.requests.append(f"{self.command} {path}")
            self._send(self.server.answer(path))
        elif (part := self.server.part(path, span)) is not None:
            self._send(part)
        else:
            self.close_connection = True

    def _send(self, answer: Answer) -> None:
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)


@contextmanager
def fake_hub(folder: Path, dataset: Path | None = None) -> Iterator[FakeHub]:
    """Runs a hub."""
    with FakeHub(folder, dataset) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()
