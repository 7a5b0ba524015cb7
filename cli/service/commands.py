"""The two commands that make up the service, written once: the launcher, compose and the tests run these."""

from __future__ import annotations

WORKER_COMMAND = (
    "celery",
    "-A",
    "worker.celery_app",
    "worker",
    "--pool",
    "threads",
    "--concurrency",
    "1",
    "-Q",
    "default",
)


def api_command(host: str, port: int) -> tuple[str, ...]:
    """Returns the API's command line; the API logs each request itself, with its id."""
    return ("uvicorn", "--factory", "api.app:create_app", "--host", host, "--port", str(port), "--no-access-log")
