"""The page's files are served as a browser wants them; what is in them is tested in a browser (tests/browser)."""

from __future__ import annotations

from pathlib import Path

import pytest

from api.routes import page
from tests.api.service import Service


@pytest.mark.parametrize(
    ("path", "media_type"),
    [
        ("/", "text/html"),
        ("/theme.js", "text/javascript"),
        ("/icon.svg", "image/svg+xml"),
        ("/favicon.ico", "image/svg+xml"),
        ("/assets/index-1a2b3c4d.js", "text/javascript"),
        ("/assets/index-1a2b3c4d.css", "text/css"),
    ],
)
def test_files_have_types_and_a_policy(module_service: Service, path: str, media_type: str):
    """With types that `nosniff` accepts, and no source but the service itself."""
    response = module_service.client.get(path)
    assert response.status_code == 200
    assert response.headers["content-type"].startswith(media_type)
    assert response.headers["content-security-policy"].startswith("default-src 'self';")


def test_only_hashed_names_are_kept_for_good(module_service: Service):
    """A new version's page is seen at once, and names the files of its own build."""
    client = module_service.client
    assert "immutable" in client.get("/assets/index-1a2b3c4d.js").headers["cache-control"]
    assert client.get("/assets/none.js").status_code == 404
    assert "no-cache" in client.get("/").headers["cache-control"]
    assert "no-cache" in client.get("/theme.js").headers["cache-control"]


def test_a_service_without_a_build_says_how_to_make_one(
    module_service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The API works all the same."""
    monkeypatch.setattr(page, "STATIC", tmp_path)
    response = module_service.client.get("/")
    assert response.status_code == 503
    assert "make web" in response.text
    assert module_service.client.get("/livez").status_code == 200
