"""Puts the API together out of settings: services, middleware, error handlers, routes.

Start it with `uvicorn --factory api.app:create_app`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool
from starlette.routing import Route

from api import refusals
from api.collector import loaded_for_good
from api.context import ContextMiddleware
from api.gate import GateMiddleware
from api.limits import raise_open_files
from api.logs import configure_logs
from api.problems import Problem
from api.routes import (
    artifacts,
    batches,
    calibration,
    health,
    history,
    hub,
    jobs,
    keys,
    models,
    page,
    publications,
    sessions,
    streams,
    uploaded_models,
    webhooks,
    workers,
)
from api.services import Services
from api.settings import ApiSettings, settings_from_env
from api.termination import on_termination

DESCRIPTION = """Quantizes language models: submit a job, follow it, download an artifact that loads.

Errors are RFC 9457 problem details with a stable `code`. Reads carry an `ETag` and answer 304 to `If-None-Match`.
Times are UTC. On loopback no key is needed; every other binding takes `Authorization: Bearer bm_...`."""
TAGS = [
    {"name": "jobs", "description": "Submit, follow, cancel and retry."},
    {"name": "batches", "description": "Many jobs in one call, side by side."},
    {
        "name": "models",
        "description": "What a model is and would need, before any job; uploading one.",
    },
    {"name": "history", "description": "What happened in a job, and the loss of each linear."},
    {"name": "artifacts", "description": "The files of a finished job."},
    {"name": "calibration sets", "description": "Texts that jobs are calibrated on."},
    {"name": "webhooks", "description": "Receivers that are told of events."},
    {"name": "api keys", "description": "Who may use the service, and how much of it."},
    {"name": "sessions", "description": "Browsers that signed in with a key."},
    {"name": "workers", "description": "Who does the work, and how much room there is."},
    {"name": "health", "description": "For process managers and Prometheus."},
]

# In the order of the document.
ROUTES = (
    jobs,
    batches,
    models,
    uploaded_models,
    hub,
    history,
    streams,
    artifacts,
    publications,
    calibration,
    workers,
    webhooks,
    keys,
    sessions,
    health,
    page,
)


def create_app(settings: ApiSettings | None = None) -> FastAPI:
    """Returns the application; without settings they come from the environment.

    Starting it raises KeyRequiredError where other machines could connect and no API key exists.
    """
    settings = settings or settings_from_env()
    configure_logs()
    services = Services.from_settings(settings)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        await run_in_threadpool(services.check_start)
        raise_open_files(settings.max_streams)
        with on_termination(services.hub.close), loaded_for_good():
            yield
        services.hub.close()
        await run_in_threadpool(services.close)

    app = FastAPI(
        title="Bitmill",
        version=version("bitmill"),
        description=DESCRIPTION,
        openapi_tags=TAGS,
        lifespan=lifespan,
        # The stock documentation pages load scripts from another origin.
        docs_url=None,
        redoc_url=None,
    )
    app.state.services = services
    # The last one added is the outermost.
    app.add_middleware(GateMiddleware, settings=settings)
    app.add_middleware(ContextMiddleware, metrics=services.metrics, tracing=services.tracing)
    refusals.install(app, [route for module in ROUTES for route in module.router.routes if isinstance(route, Route)])
    for module in ROUTES:
        app.include_router(module.router)
    page.mount_static(app)
    _complete_openapi(app)
    return app


def _complete_openapi(app: FastAPI) -> None:
    """Adds what the routes refer to by name: the problem schema."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        schemas = document["components"]["schemas"]
        if "Problem" not in schemas:
            problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas.update(problem.pop("$defs"))
            schemas["Problem"] = problem
            _drop_stock_errors(document)
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend the document


def _drop_stock_errors(document: dict[str, Any]) -> None:
    """Removes FastAPI's own form of a 422, which it writes for every route with a path parameter; it is never sent."""
    for operation in (one for path in document["paths"].values() for one in path.values()):
        answer = operation["responses"].get("422")
        if answer and "application/json" in answer["content"]:
            del operation["responses"]["422"]
    for name in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(name, None)
