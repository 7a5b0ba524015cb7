"""Wake-ups: they arrive at a real Celery worker over each broker, and a broken broker costs the sender little."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import celery
import pytest
import redis

from store.queue import KEY_PREFIX, Waker, make_celery
from store.settings import StoreSettings
from tests.servers import RedisServer, free_port
from tests.store.broken_messages import BROKEN_MESSAGES

ARRIVES_SECONDS = 60.0
# What a request may lose on a broker that does not answer.
SENDER_SECONDS = 5.0


@pytest.fixture(params=["filesystem", "redis"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> StoreSettings:
    """Settings that name a broker of each kind."""
    url = "filesystem://" if request.param == "filesystem" else request.getfixturevalue("redis_url")
    return StoreSettings(data_dir=tmp_path / "data", broker_url=url)


@contextmanager
def _worker(settings: StoreSettings, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Runs a real Celery worker with the command line of the product, on the probe's task."""
    program = [sys.executable, "-m", "celery", "-A", "tests.store.probe_app", "worker"]
    environment = {
        **os.environ,
        "BITMILL_DATA_DIR": str(settings.data_dir),
        "BITMILL_BROKER_URL": settings.broker_url,
        "PROBE_LOG": str(log),
        # Celery warns when it runs as root, as containers and this suite may.
        "C_FORCE_ROOT": "1",
    }
    output = (log.parent / "worker.log").open("wb")
    process = subprocess.Popen(
        [*program, "--pool", "threads", "--concurrency", "1", "-Q", "default"],
        env=environment,
        stdout=output,
        stderr=output,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(timeout=30)
        output.close()


def _wait(condition: Callable[[], bool], seconds: float = ARRIVES_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.05)


def _arrived(log: Path) -> list[str]:
    return log.read_text().splitlines() if log.exists() else []


def test_wake_up_reaches_a_worker(settings: StoreSettings, tmp_path: Path) -> None:
    """A wake-up sent before the worker starts and one sent after it each run the task once, with their hint."""
    log = tmp_path / "log"
    waker = Waker(settings)
    assert waker.wake("default", "job_1")
    with _worker(settings, log):
        _wait(lambda: _arrived(log) == ["default job_1"])
        assert waker.wake("default", "job_2")
        _wait(lambda: _arrived(log) == ["default job_1", "default job_2"])
    waker.close()


class Queue:
    """The queue as it lies in the broker, for whoever writes into it without Celery."""

    def __init__(self, settings: StoreSettings) -> None:
        self._folder = settings.broker_dir / "messages"
        self._url = settings.broker_url if settings.broker_url.startswith("redis") else None

    def put(self, content: bytes) -> None:
        """Adds a message behind those that are there."""
        if self._url is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            (self._folder / f"{time.time_ns()}.default.msg").write_bytes(content)
            return
        with redis.Redis.from_url(self._url) as client:
            client.lpush(f"{KEY_PREFIX}default", content)

    @property
    def left(self) -> int:
        """How many messages wait or are held as not acknowledged."""
        if self._url is None:
            return len([path for path in self._folder.parent.rglob("*") if path.is_file()])
        with redis.Redis.from_url(self._url) as client:
            return int(client.llen(f"{KEY_PREFIX}default")) + int(client.hlen(f"{KEY_PREFIX}unacked"))


def test_broken_messages_do_not_stop_the_consumer(settings: StoreSettings, tmp_path: Path) -> None:
    """Whatever lies in the queue, a real worker drops it, says so, holds nothing of it and runs the next wake-up."""
    log, queue = tmp_path / "log", Queue(settings)
    for content in BROKEN_MESSAGES.values():
        queue.put(content)
    waker = Waker(settings)
    assert waker.wake("default", "first")
    with _worker(settings, log) as worker:
        _wait(lambda: _arrived(log) == ["default first"])
        hints = [str(number) for number in range(len(BROKEN_MESSAGES))]
        for hint, content in zip(hints, BROKEN_MESSAGES.values(), strict=True):
            queue.put(content)
            assert waker.wake("default", hint)
        _wait(lambda: len(_arrived(log)) > len(hints))
        assert sorted(_arrived(log)) == sorted(f"default {hint}" for hint in ["first", *hints])
        _wait(lambda: queue.left == 0)
        assert worker.poll() is None
    assert "broken_message_dropped" in (tmp_path / "worker.log").read_text()
    waker.close()


def test_dead_broker_costs_little_and_is_left_alone(private_redis: RedisServer) -> None:
    """Without a broker, wake answers False soon, then at once for a while, and works again when the broker is back."""
    waker = Waker(StoreSettings(broker_url=private_redis.url))
    assert waker.wake("default")
    private_redis.stop()
    started = time.monotonic()
    assert not waker.wake("default")
    assert time.monotonic() - started < SENDER_SECONDS
    assert waker.suspended
    with socket.create_server(("127.0.0.1", private_redis.port)) as listener:
        assert not waker.wake("default")
        assert waker.suspended
        listener.settimeout(0)
        with pytest.raises(BlockingIOError):
            listener.accept()
    private_redis.start()
    _wait(lambda: not waker.suspended)
    assert waker.wake("default")
    waker.close()


def test_broker_that_never_was_there() -> None:
    """Nothing listening is a False, not an exception."""
    waker = Waker(StoreSettings(broker_url=f"redis://127.0.0.1:{free_port()}/0"))
    started = time.monotonic()
    assert not waker.wake("default")
    assert time.monotonic() - started < SENDER_SECONDS
    waker.close()


def test_silent_broker_costs_little() -> None:
    """A broker that accepts connections and never answers is given up within the sender's timeouts."""
    with socket.create_server(("127.0.0.1", 0), backlog=8) as listener:
        waker = Waker(StoreSettings(broker_url=f"redis://127.0.0.1:{listener.getsockname()[1]}/0"))
        started = time.monotonic()
        assert not waker.wake("default")
        assert time.monotonic() - started < SENDER_SECONDS
        waker.close()


def test_unusable_folder_is_a_dead_broker(tmp_path: Path) -> None:
    """A broker folder that cannot be made costs the wake-up, not the submit."""
    (tmp_path / "data").write_text("a file where the data folder should be")
    waker = Waker(StoreSettings(data_dir=tmp_path / "data"))
    assert not waker.wake("default")
    waker.close()


def test_application_is_set_up_as_designed(settings: StoreSettings) -> None:
    """The settings that delivery, recovery and safety rest on, and no process-wide default application."""
    app = make_celery(settings)
    on_redis = settings.broker_url.startswith("redis")
    expected = {
        "task_acks_late": False,
        "task_reject_on_worker_lost": False,
        "task_ignore_result": True,
        "task_create_missing_queues": False,
        "task_publish_retry": False,
        "task_serializer": "json",
        "accept_content": ["json"],
        "result_backend": None,
        "worker_disable_prefetch": on_redis,
        "worker_prefetch_multiplier": 1,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "worker_hijack_root_logger": False,
        "worker_enable_remote_control": False,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
    }
    assert {name: app.conf[name] for name in expected} == expected
    options = app.conf.broker_transport_options
    assert (options.get("visibility_timeout"), options.get("polling_interval")) == (
        (300, None) if on_redis else (None, 0.25)
    )
    assert celery.current_app.main != app.main


def test_redis_over_tls_checks_the_server() -> None:
    """Unless the URL says otherwise."""

    def asked_of(url: str) -> object:
        return make_celery(StoreSettings(broker_url=url)).connection_for_read().ssl

    assert asked_of("rediss://broker:6379/0") == {"ssl_cert_reqs": ssl.CERT_REQUIRED}
    assert asked_of("rediss://broker:6379/0?ssl_cert_reqs=none") == {"ssl_cert_reqs": ssl.CERT_NONE}
    assert asked_of("redis://broker:6379/0") is False
