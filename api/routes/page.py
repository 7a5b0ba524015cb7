"""The dashboard at `/`: files that the build in `web/` makes, no template, no inline script. It is a client."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter, FastAPI
from fastapi.responses import FileResponse, PlainTextResponse, Response
from fastapi.staticfiles import StaticFiles

STATIC = Path(__file__).resolve().parent.parent / "static"
# Names in `assets/` carry the hash of their content, so a name's bytes never change.
IMMUTABLE = "public, max-age=31536000, immutable"
NOT_BUILT = "The dashboard is not built: run `make web`. The API is at /v1, described in /openapi.json.\n"

router = APIRouter(include_in_schema=False)


@router.get("/")
def index() -> Response:
    """Returns the page; the data in it comes from the API, with the caller's own key."""
    return _page_file("index.html")


@router.get("/theme.js")
def theme() -> Response:
    """The script that chooses the theme before the first paint."""
    return _page_file("theme.js")


@router.get("/icon.svg")
@router.get("/favicon.ico")
def icon() -> Response:
    """Browsers ask for the second name unbidden."""
    return _page_file("icon.svg", media_type="image/svg+xml")


def _page_file(name: str, media_type: str | None = None) -> Response:
    path = STATIC / name
    if not path.is_file():
        return PlainTextResponse(NOT_BUILT, status_code=503)
    return FileResponse(path, media_type=media_type)


class Assets(StaticFiles):
    """The page's scripts and styles, kept by browsers for good."""

    def file_response(self, *args: object, **kwargs: object) -> Response:
        """Returns a file's answer, which says that it may be kept."""
        response = super().file_response(*args, **kwargs)  # type: ignore[arg-type]  # handed on as they came
        response.headers["Cache-Control"] = IMMUTABLE
        return response


def mount_static(app: FastAPI) -> None:
    """Serves the page's scripts and styles. Without a build, every name is simply not there."""
    app.mount("/assets", Assets(directory=STATIC / "assets", check_dir=False), name="assets")
