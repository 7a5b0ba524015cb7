"""The page: all of it is ours, nothing in it needs what the security policy forbids, everything it names is there."""

from __future__ import annotations

import re

import pytest

from api.routes.page import STATIC
from store.jobs import JobState
from tests.api.service import Service

FILES = sorted(path.name for path in STATIC.iterdir())
PAGE = (STATIC / "index.html").read_text()


def test_the_page_and_its_files_are_served(module_service: Service):
    """With types that `nosniff` accepts."""
    types = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".html": "text/html"}
    assert module_service.client.get("/").headers["content-type"].startswith("text/html")
    for name in FILES:
        response = module_service.client.get(f"/static/{name}")
        assert response.status_code == 200
        assert response.headers["content-type"].startswith(types["." + name.rsplit(".", 1)[1]])
    assert module_service.client.get("/favicon.ico").headers["content-type"] == "image/svg+xml"


def test_every_file_that_is_named_exists():
    """Of the page's links and of the scripts' imports."""
    named = set(re.findall(r'(?:src|href)="/static/([^"]+)"', PAGE))
    for script in STATIC.glob("*.js"):
        named |= set(re.findall(r'from "\./([^"]+)"', script.read_text()))
    assert named <= set(FILES)


@pytest.mark.parametrize("name", FILES)
def test_nothing_comes_from_elsewhere(name: str):
    """No address of another origin but the name of the SVG format."""
    text = (STATIC / name).read_text().replace("http://www.w3.org/2000/svg", "")
    assert "http://" not in text
    assert "https://" not in text


def test_the_page_keeps_to_its_policy():
    """No inline script, style or handler: the policy would block them, silently for the author."""
    assert re.findall(r"<script(?![^>]*src=)", PAGE) == []
    assert re.findall(r"<style", PAGE) == []
    assert re.findall(r"\s(?:on\w+|style)=", PAGE) == []
    scripts = "".join(script.read_text() for script in STATIC.glob("*.js"))
    for forbidden in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
        assert forbidden not in scripts


def test_each_state_has_a_shape_a_colour_and_a_filter():
    """A state is never told by colour alone."""
    style = (STATIC / "style.css").read_text()
    for state in JobState:
        assert f'id="s-{state}"' in PAGE
        assert f'<option value="{state}">' in PAGE
        assert style.count(f"--{state}:") == 2


def test_a_form_field_that_the_api_can_name_is_a_field_of_the_request():
    """Errors are put beside the field by pointer, so the two must spell alike."""
    from api.schemas.requests import CalibrationOptions, JobRequest  # noqa: PLC0415 - only this test needs them

    fields = set(JobRequest.model_fields)
    for pointer in re.findall(r'data-pointer="#/([^"]+)"', PAGE):
        first, _, second = pointer.partition("/")
        assert first in fields | {"file"}
        assert not second or second in CalibrationOptions.model_fields
