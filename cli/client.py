"""Talks to the service over HTTP: JSON in and out, files as streams, problems as CliError with field and remedy."""

from __future__ import annotations

from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

import httpx

from cli.errors import CliError, ExitCode

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from cli.settings import ClientSettings

TIMEOUT = httpx.Timeout(30.0, connect=5.0)
# The service reads and checks all of a file before it answers.
UPLOAD_TIMEOUT = httpx.Timeout(3600.0, connect=5.0)
LOOPBACK = {"127.0.0.1", "localhost", "::1"}
NOT_MODIFIED = 304
SERVER_FAULT = 500
# What the service refuses because of who asks or what state things are in; the rest of 4xx is about the request itself.
REFUSED_STATUSES = {401, 403, 404, 405, 409, 410, 412}
BUSY_STATUSES = {408, 425, 429}


class ServiceClient:
    """One connection pool to one service. Use it as a context."""

    def __init__(self, settings: ClientSettings) -> None:
        """Opens nothing yet. Raises CliError where the address is no http(s) URL."""
        parts = urlsplit(settings.url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise CliError(
                ExitCode.USAGE,
                f"{settings.url!r} is not the address of a service.",
                hint="Give --url (or BITMILL_URL) like http://127.0.0.1:8080.",
                code="bad_url",
                field="--url",
            )
        self._url = settings.url
        self._http = httpx.Client(
            base_url=settings.url,
            timeout=TIMEOUT,
            headers={"Authorization": f"Bearer {settings.api_key}"} if settings.api_key else {},
            # A proxy from the environment has no way to this machine's loopback.
            trust_env=parts.hostname not in LOOPBACK,
        )

    def __enter__(self) -> Self:
        """Returns itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes the connections."""
        self._http.close()

    def get(self, path: str, **parameters: object) -> dict[str, Any]:
        """Returns the JSON object at a path; parameters that are None are left out."""
        with self._problems():
            return _object(self._http.get(path, params=_given(parameters)))

    def get_changed(self, path: str, etag: str | None) -> tuple[dict[str, Any] | None, str | None]:
        """Returns the JSON object and its ETag, or None for the object if it is still the one with this ETag."""
        with self._problems():
            response = self._http.get(path, headers={"If-None-Match": etag} if etag else {})
            if response.status_code == NOT_MODIFIED:
                return None, etag
            return _object(response), response.headers.get("etag")

    def post(self, path: str, body: Mapping[str, Any] | None = None, **headers: str) -> dict[str, Any]:
        """Sends JSON (or nothing) and returns the JSON object that comes back; header names use `_` for `-`."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        with self._problems():
            return _object(self._http.post(path, json=body, headers=sent))

    def put(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Puts JSON and returns the JSON object that comes back."""
        with self._problems():
            return _object(self._http.put(path, json=body))

    def patch(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Changes what is at a path and returns the JSON object that comes back."""
        with self._problems():
            return _object(self._http.patch(path, json=body))

    def delete(self, path: str) -> None:
        """Removes what is at a path."""
        with self._problems():
            response = self._http.delete(path)
            if response.is_error:
                raise problem_error(response)

    def upload(self, path: str, file: Path) -> dict[str, Any]:
        """Streams a file as multipart and returns the JSON object that comes back.

        Raises CliError if the file cannot be read.
        """
        try:
            stream = file.open("rb")
        except OSError as error:
            raise CliError(
                ExitCode.USAGE,
                f"--calib {file} cannot be read: {error.strerror}.",
                hint="Give a text or JSONL file.",
                code="calibration_unreadable",
                field="--calib",
            ) from error
        with stream:
            return self.send_file(path, file.name, stream)

    def send_file(self, path: str, file_name: str, stream: IO[bytes], **fields: str) -> dict[str, Any]:
        """Streams bytes as multipart, with further fields, and returns the JSON object that comes back."""
        with self._problems():
            content = {"file": (file_name, stream, "application/octet-stream")}
            return _object(self._http.post(path, data=fields, files=content, timeout=UPLOAD_TIMEOUT))

    @contextmanager
    def stream(self, path: str, headers: Mapping[str, str]) -> Iterator[httpx.Response]:
        """Yields an answer whose body is read piece by piece; an error status raises CliError."""
        # Bytes as they lie in the store: a compressed answer would have other lengths and no ranges.
        sent = {"Accept-Encoding": "identity", **headers}
        with self._problems(), self._http.stream("GET", path, headers=sent) as response:
            if response.is_error:
                response.read()
                raise problem_error(response)
            yield response

    def text(self, path: str) -> str:
        """Returns the text at a path."""
        with self._problems():
            response = self._http.get(path)
            if response.is_error:
                raise problem_error(response)
            return response.text

    @contextmanager
    def _problems(self) -> Iterator[None]:
        try:
            yield
        except httpx.ConnectError as error:
            raise CliError(
                ExitCode.UNAVAILABLE,
                f"No service answers at {self._url}.",
                hint="Start one with `bitmill up`, or name another with --url or BITMILL_URL.",
                code="service_unreachable",
                field="--url",
            ) from error
        except httpx.TransportError as error:
            raise CliError(
                ExitCode.UNAVAILABLE,
                f"The connection to {self._url} broke: {str(error) or type(error).__name__}.",
                hint="Try again; nothing is lost by asking twice.",
                code="connection_broken",
            ) from error


def _given(parameters: Mapping[str, object]) -> dict[str, str]:
    return {name: str(value) for name, value in parameters.items() if value is not None}


def _object(response: httpx.Response) -> dict[str, Any]:
    if response.is_error:
        raise problem_error(response)
    return _json_object(response)


def _json_object(response: httpx.Response) -> dict[str, Any]:
    try:
        value = response.json()
    except ValueError as error:
        raise _not_bitmill(response) from error
    if not isinstance(value, dict):
        raise _not_bitmill(response)
    return value


def _not_bitmill(response: httpx.Response) -> CliError:
    return CliError(
        ExitCode.UNAVAILABLE,
        f"{response.request.url} answered {response.status_code}, but not as a Bitmill service does.",
        hint="Check --url (or BITMILL_URL).",
        code="not_bitmill",
        field="--url",
    )


def problem_error(response: httpx.Response) -> CliError:
    """Returns the error for a problem+json answer: its detail, the fields to blame, its hint."""
    problem = _json_object(response)
    if "code" not in problem:
        raise _not_bitmill(response)
    fields = [_place(entry) for entry in problem.get("errors", [])]
    details = [f"{_place(entry)}: {entry['detail']}" for entry in problem.get("errors", []) if entry.get("detail")]
    message = problem.get("detail") or problem.get("title", "refused")
    if len(details) > 1 or (details and fields[0] not in message):
        message = f"{message} {'; '.join(details)}."
    return CliError(
        _exit_code(response.status_code),
        message,
        hint=problem.get("hint", ""),
        code=problem["code"],
        field=fields[0] if fields else None,
    )


def _place(entry: Mapping[str, Any]) -> str:
    """Returns the field that an entry of `errors` blames: `calibration.samples` for `#/calibration/samples`."""
    if pointer := entry.get("pointer"):
        return str(pointer).removeprefix("#").strip("/").replace("/", ".")
    return str(entry.get("parameter") or entry.get("header") or "request")


def _exit_code(status: int) -> ExitCode:
    if status >= SERVER_FAULT or status in BUSY_STATUSES:
        return ExitCode.UNAVAILABLE
    return ExitCode.REFUSED if status in REFUSED_STATUSES else ExitCode.USAGE
