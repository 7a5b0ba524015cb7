"""A process that has loaded everything a worker and an API need, and forks them on request: a start costs no import.

One JSON object per line on standard input says what to become; the answer is the new process's id. What is forked runs
the very application object that the production command runs, and dies with this process.
"""

from __future__ import annotations

import datetime as dt
import importlib
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

PRELOADED = (
    "alembic.command",
    "api.app",
    "celery.apps.worker",
    "celery.bin.worker",
    "celery.concurrency.thread",
    "kombu.transport.redis",
    "obstore.store",
    "psycopg",
    "sqlalchemy.dialects.postgresql.psycopg",
    "sqlalchemy.dialects.sqlite",
    "uvicorn.loops.uvloop",
    "uvicorn.protocols.http.httptools_impl",
    "worker.dispatcher",
    "worker.logs",
    "worker.tasks",
)


def main() -> None:
    """Serves requests until standard input ends."""
    for name in PRELOADED:
        importlib.import_module(name)
    # Nobody waits for the forked ones here: the system reaps them.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    parent = os.getpid()
    for line in iter(sys.stdin.readline, ""):
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            become(order, parent)
        print(pid, flush=True)  # noqa: T201 - the answer


def become(order: dict[str, Any], parent: int) -> None:
    """Turns this fork into what was ordered; does not return."""
    code = 1
    try:
        _detach(Path(order["log"]), parent)
        os.environ.clear()
        os.environ.update(order["environment"])
        if order["clock_offset"]:
            shift_clock(order["clock_offset"])
        RUN[order["role"]](order)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _detach(log: Path, parent: int) -> None:
    from worker.channel import die_with_parent  # noqa: PLC0415 - loaded already

    os.setsid()
    die_with_parent()
    if os.getppid() != parent:
        os._exit(1)
    for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(source, target)


def _run_worker(order: dict[str, Any]) -> None:
    from worker.celery_app import app  # noqa: PLC0415 - it reads the environment when it is imported

    queues = order["queues"]
    arguments = ["worker", "--pool", "threads", "--concurrency", str(order["slots"]), "-Q", queues]
    app.worker_main([*arguments, "-n", f"fault-{os.getpid()}@test"])


def _run_api(order: dict[str, Any]) -> None:
    import uvicorn  # noqa: PLC0415 - loaded already

    from api.app import create_app  # noqa: PLC0415
    from api.settings import settings_from_env  # noqa: PLC0415

    uvicorn.run(create_app(settings_from_env()), host="127.0.0.1", port=order["port"], log_level="warning")


RUN = {"worker": _run_worker, "api": _run_api}


def shift_clock(seconds: float) -> None:
    """Makes this process believe that it is so much later; elapsed time stays what it is."""
    now, now_ns, real = time.time, time.time_ns, dt.datetime

    class Shifted(real):
        """The wall clock of a machine that is wrong."""

        @classmethod
        def now(cls, tz: dt.tzinfo | None = None) -> dt.datetime:  # type: ignore[override]  # the base's Self
            """Returns the wrong time."""
            return real.now(tz) + dt.timedelta(seconds=seconds)

    time.time = lambda: now() + seconds
    time.time_ns = lambda: now_ns() + int(seconds * 1e9)
    for module in list(sys.modules.values()):
        if getattr(module, "datetime", None) is real and module is not dt:
            module.datetime = Shifted  # type: ignore[attr-defined]  # whatever module took the name


if __name__ == "__main__":
    main()
