"""A PostgreSQL server of a test's own, which it may stop at once, start again, copy and promote."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.servers import free_port, new_postgres

USER = "postgres"
CONFIGURATION = """
fsync = off
max_connections = 60
wal_level = replica
max_wal_senders = 4
hot_standby = on
unix_socket_directories = ''
"""
SMALL_WAL_MB = 1


class Cluster:
    """One server on a port of the loopback interface."""

    def __init__(self, folder: Path) -> None:
        self._server = new_postgres(folder, cleanup_mode=None)
        self.folder = folder
        self.port = free_port()

    @property
    def url(self) -> str:
        """The URL of its first database."""
        return f"postgresql+psycopg://{USER}@127.0.0.1:{self.port}/postgres"

    def create(self) -> None:
        """Makes the files of a new, empty server."""
        self._server.ensure_pgdata_inited()
        with (self.folder / "postgresql.conf").open("a") as configuration:
            configuration.write(CONFIGURATION)

    def shrink_wal(self) -> None:
        """Lets a server that does not run keep its log in small files: a limit on files is then met by tables first."""
        self._run("pg_resetwal", "-f", f"--wal-segsize={SMALL_WAL_MB}", "-D", self.folder)

    def limit_files(self, largest_bytes: int | None) -> None:
        """Lets no file of a running server grow beyond so many bytes, as a full disk would; None for any size."""
        postmaster = psutil.Process(int((self.folder / "postmaster.pid").read_text().split()[0]))
        limit = f"--fsize={largest_bytes or 'unlimited'}:unlimited"
        # New processes take the limit over from the first one, so that comes first.
        for process in [postmaster, *postmaster.children(recursive=True)]:
            done = self._as_owner(["prlimit", "--pid", str(process.pid), limit])
            assert done.returncode == 0 or not process.is_running(), "the limit on files cannot be set"

    def start(self) -> None:
        """Starts it and waits until it answers."""
        options = f"-h 127.0.0.1 -p {self.port}"
        self._run("pg_ctl", "-w", "-t", "60", "-D", self.folder, "-o", options, "-l", self.folder / "log", "start")

    def stop_at_once(self) -> None:
        """Ends it as a crash does; the next start recovers."""
        self._run("pg_ctl", "-w", "-D", self.folder, "-m", "immediate", "stop")

    def promote(self) -> None:
        """Makes a replica the server that writes."""
        self._run("pg_ctl", "-w", "-t", "60", "-D", self.folder, "promote")

    def replica(self, folder: Path) -> Cluster:
        """Returns a copy that follows this server, not started."""
        follower = Cluster(folder)
        shutil.rmtree(folder, ignore_errors=True)
        source = f"host=127.0.0.1 port={self.port} user={USER}"
        self._run("pg_basebackup", "-D", folder, "-d", source, "-R", "-X", "stream", "-c", "fast")
        return follower

    def _run(self, command: str, *arguments: object) -> None:
        done = self._as_owner([str(self._server.bin_path / command), *map(str, arguments)])
        log = self.folder / "log"
        assert done.returncode == 0, f"{command} failed: {log.read_text()[-2000:] if log.exists() else ''}"

    def _as_owner(self, command: Sequence[str]) -> subprocess.CompletedProcess[bytes]:
        """Runs a command as the user whose server it is."""
        return subprocess.run(
            command,
            user=self._server.system_user,
            cwd="/",
            stdin=subprocess.DEVNULL,
            # Not a pipe: the server that pg_ctl starts would keep it open.
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
            timeout=120,
        )


@contextmanager
def cluster_folder() -> Iterator[Path]:
    """Yields a folder in which clusters may lie: as root they run as a user of their own, who must get there."""
    with tempfile.TemporaryDirectory(prefix="bitmill-cluster-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o777)
        yield folder


@contextmanager
def running_cluster(folder: Path, *, small_wal: bool = False) -> Iterator[Cluster]:
    """Runs a new server."""
    cluster = Cluster(folder)
    cluster.create()
    if small_wal:
        cluster.shrink_wal()
    cluster.start()
    try:
        yield cluster
    finally:
        if (folder / "postmaster.pid").exists():
            cluster.stop_at_once()
