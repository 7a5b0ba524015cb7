"""A Celery application as workers have it, whose task only writes a line into the file named by PROBE_LOG."""

from __future__ import annotations

import os
from pathlib import Path

from store.queue import make_celery
from store.settings import settings_from_env
from store.wake_ups import RUN_NEXT

app = make_celery(settings_from_env())


@app.task(name=RUN_NEXT)
def run_next(queue_class: str, hint: str | None = None) -> None:
    """Appends one line to the log."""
    with Path(os.environ["PROBE_LOG"]).open("a") as log:
        log.write(f"{queue_class} {hint}\n")
