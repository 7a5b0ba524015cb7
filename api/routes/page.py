"""The page at `/`: static files of our own, no template, no inline script. It is the API's first client, no more."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter, FastAPI
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles

STATIC = Path(__file__).resolve().parent.parent / "static"

router = APIRouter(include_in_schema=False)


@router.get("/")
async def index() -> FileResponse:
    """Returns the page; the data in it comes from the API, with the caller's own key."""
    return FileResponse(STATIC / "index.html")


@router.get("/favicon.ico")
async def favicon() -> FileResponse:
    """Browsers ask for it unbidden."""
    return FileResponse(STATIC / "icon.svg", media_type="image/svg+xml")


def mount_static(app: FastAPI) -> None:
    """Serves the page's scripts, styles and images."""
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
