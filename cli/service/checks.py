"""What must hold before the service starts: a writable data directory of its own and a free port."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import tempfile
from pathlib import Path

from cli.errors import CliError, ExitCode

LOCK_NAME = "launcher.lock"


def check_writable(data_dir: Path) -> None:
    """Creates the data directory; raises CliError if it cannot be made or written."""
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=data_dir):
            pass
    except OSError as error:
        raise CliError(
            ExitCode.UNAVAILABLE,
            f"The data directory {data_dir} cannot be written: {error.strerror or error}.",
            hint="Give another folder with --data-dir, or make this one writable.",
            code="data_dir_not_writable",
            field="--data-dir",
        ) from error


def lock_data_dir(data_dir: Path, address: str) -> int:
    """Takes the data directory for this process until it ends, however it ends. Returns the lock's descriptor.

    Raises CliError, naming the address of the other service, if it is taken.
    """
    descriptor = os.open(data_dir / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        other = os.read(descriptor, 300).decode(errors="replace").strip() or "another process"
        os.close(descriptor)
        raise CliError(
            ExitCode.UNAVAILABLE,
            f"The data directory {data_dir} is in use by {other}.",
            hint="Stop that service, or give another folder with --data-dir.",
            code="data_dir_in_use",
            field="--data-dir",
        ) from error
    os.truncate(descriptor, 0)
    os.write(descriptor, f"the service at {address} (process {os.getpid()})".encode())
    return descriptor


def check_port(host: str, port: int) -> None:
    """Raises CliError if the address cannot be listened on."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except socket.gaierror as error:
        raise CliError(
            ExitCode.USAGE,
            f"--host {host} is not an address of this machine: {error.strerror}.",
            hint="Use 127.0.0.1 for this machine only, or 0.0.0.0 for every interface.",
            code="bad_host",
            field="--host",
        ) from error
    with socket.socket(family, kind, protocol) as probe:
        # As the server does it: a port in TIME_WAIT is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            raise _address_error(host, port, error) from error


def _address_error(host: str, port: int, error: OSError) -> CliError:
    if error.errno == errno.EADDRINUSE:
        return CliError(
            ExitCode.UNAVAILABLE,
            f"Port {port} on {host} is taken by another program.",
            hint=f"Stop that program, or choose another port: --port {port + 1}.",
            code="port_taken",
            field="--port",
        )
    return CliError(
        ExitCode.UNAVAILABLE,
        f"Cannot listen on {host}:{port}: {error.strerror or error}.",
        hint="Give another --host or --port.",
        code="cannot_listen",
        field="--host",
    )


def free_port(host: str = "127.0.0.1") -> int:
    """Returns a port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port
