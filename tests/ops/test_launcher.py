"""`bitmill up`: it restarts what dies, ends without orphans, and says clearly why it does not start."""

from __future__ import annotations

import signal
import socket
from pathlib import Path

import httpx
import psutil
import pytest

from cli.errors import ExitCode
from cli.service.checks import free_port
from cli.service.child import restart_delay
from tests.kernels import with_kernels
from tests.ops.service import RunningService, run_bitmill, running_service, wait_until
from tests.worker.models import write_tiny_llama


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    write_tiny_llama(root / "tiny", blocks=40, hidden=128)
    return root


def all_gone(family: list[psutil.Process]) -> bool:
    return not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in family)


def test_it_restarts_a_killed_child_and_stops_without_orphans(tmp_path: Path):
    """A killed API and a killed worker come back under new ids; TERM ends everything with exit code 0."""
    with running_service(tmp_path / "data") as service:
        for name in ("uvicorn", "celery"):
            old = service.child(name)
            old.kill()
            wait_until(lambda old=old, name=name: has_new_child(service, name, old.pid))
        wait_until(service.ready)
        second = run_bitmill("up", "--data-dir", str(service.data_dir), "--port", str(free_port()))
        assert second.returncode == ExitCode.UNAVAILABLE
        assert f"in use by the service at {service.url}" in second.stderr
        family = service.family()
        service.launcher.send_signal(signal.SIGTERM)
        assert service.launcher.wait(60) == 0
        assert all_gone(family)


def has_new_child(service: RunningService, name: str, old_pid: int) -> bool:
    child = service.find_child(name)
    return child is not None and child.pid != old_pid


def test_children_do_not_outlive_a_killed_launcher(tmp_path: Path):
    """Kill -9 of the launcher, which can run no handler, still ends the API and the worker."""
    with running_service(tmp_path / "data") as service:
        children = psutil.Process(service.launcher.pid).children(recursive=True)
        assert len(children) >= 2
        service.launcher.kill()
        service.launcher.wait()
        wait_until(lambda: all_gone(children), seconds=20)


def test_a_job_under_way_survives_a_stop_and_goes_on_at_the_next_start(tmp_path: Path, models: Path):
    """TERM in the middle of a job gives it back without counting a failure; the next start finishes it."""
    data_dir, cache_dir = tmp_path / "data", with_kernels(tmp_path / "cache")
    with running_service(data_dir, models, cache_dir) as service:
        body = {
            "model": {"source": "path", "path": str(models / "tiny")},
            "group_size": 32,
            "calibration": {"samples": 16, "seq_len": 256},
        }
        answer = httpx.post(f"{service.url}/v1/jobs", json=body, trust_env=False)
        assert answer.status_code == 202, answer.text
        job_url = answer.headers["location"]
        wait_until(lambda: progress(service, job_url)["blocks_done"] >= 2, seconds=120)
        service.launcher.send_signal(signal.SIGTERM)
        assert service.launcher.wait(60) == 0
    with running_service(data_dir, models, cache_dir) as service:
        wait_until(lambda: progress(service, job_url)["state"] == "succeeded", seconds=120)
        job = httpx.get(f"{service.url}{job_url}", trust_env=False).json()
        assert job["failures"] == 0
        assert job["attempt"] == 2


def progress(service: RunningService, job_url: str) -> dict[str, object]:
    answer: dict[str, object] = httpx.get(f"{service.url}{job_url}/progress", trust_env=False).json()
    return answer


def test_a_taken_port_is_named_with_the_remedy(tmp_path: Path):
    """Exit code 3, the port and another port to take; nothing is started."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        done = run_bitmill("up", "--data-dir", str(tmp_path), "--port", str(port))
    assert done.returncode == ExitCode.UNAVAILABLE
    assert f"Port {port} on 127.0.0.1 is taken" in done.stderr
    assert f"--port {port + 1}" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_data_directory_that_cannot_be_written_is_named():
    """Exit code 3 and the folder, before any process is started; into /proc nobody can write, not even root."""
    done = run_bitmill("up", "--data-dir", "/proc/bitmill", "--port", str(free_port()))
    assert done.returncode == ExitCode.UNAVAILABLE
    assert "/proc/bitmill cannot be written" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_data_directory_below_a_file_is_named(tmp_path: Path):
    """A path through a file is refused with the same words as one without permission."""
    (tmp_path / "file").touch()
    done = run_bitmill("up", "--data-dir", str(tmp_path / "file" / "data"), "--port", str(free_port()))
    assert done.returncode == ExitCode.UNAVAILABLE
    assert "cannot be written" in done.stderr


def test_a_corrupt_database_is_an_error_and_stays_as_it_is(tmp_path: Path):
    """Exit code 3, no traceback, and the file's bytes are not touched."""
    database = tmp_path / "bitmill.db"
    database.write_bytes(b"this is no database" * 100)
    before = database.read_bytes()
    done = run_bitmill("up", "--data-dir", str(tmp_path), "--port", str(free_port()))
    assert done.returncode == ExitCode.UNAVAILABLE
    assert "not a database" in done.stderr
    assert "Traceback" not in done.stderr
    assert database.read_bytes() == before


def test_another_binding_than_loopback_needs_a_key(tmp_path: Path):
    """Without any key the service does not start on an address that others reach; the message says what to run."""
    done = run_bitmill("up", "--data-dir", str(tmp_path), "--host", "::", "--port", str(free_port()), timeout=120)
    assert done.returncode == ExitCode.UNAVAILABLE
    assert "bitmill keys create" in done.stderr
    assert "Traceback" not in done.stderr


def test_restarts_slow_down_and_have_a_longest_delay():
    """0.5 s, doubled with every death in a row, 30 s at most."""
    assert [restart_delay(deaths) for deaths in (1, 2, 3, 4)] == [0.5, 1.0, 2.0, 4.0]
    assert restart_delay(20) == 30.0
