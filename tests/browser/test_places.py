"""Where else the page must work: behind a path prefix, and where other machines can reach it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from api.app import create_app
from api.settings import ApiSettings
from store.session import Database
from tests.api import service as api_service
from tests.browser.conftest import OpenPage, served_in, url_of
from tests.browser.staging import run

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

PREFIX = "/tools/bitmill"


class Behind:
    """An application behind a proxy that takes a prefix off; what is asked for outside of it is not there."""

    def __init__(self, settings: ApiSettings) -> None:
        self._app = create_app(settings)
        self.state = self._app.state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hands a request on without its prefix."""
        if scope["type"] == "http":
            path = scope["path"]
            assert path.startswith(f"{PREFIX}/"), f"{path} was asked for outside of the prefix"
            scope = {**scope, "path": path.removeprefix(PREFIX), "raw_path": path.removeprefix(PREFIX).encode()}
        await self._app(scope, receive, send)


def test_it_works_behind_a_prefix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, open_page: OpenPage):
    """Every script, call, stream and link stays below it."""
    monkeypatch.setattr(api_service, "create_app", Behind)
    with served_in(tmp_path) as service:
        original = service.client.base_url
        service.client.base_url = original.copy_with(path=f"{PREFIX}/")
        job = run(service, 3)
        with open_page(f"{str(original).rstrip('/')}{PREFIX}/#/jobs/{job}") as page:
            page.get_by_role("heading", name="SmolLM2-135M-Instruct", level=1).wait_for()
            page.get_by_title("Live: changes appear by themselves").wait_for()
            page.get_by_role("link", name="New job").click()
            page.get_by_role("heading", name="New job", level=1).wait_for()
            page.get_by_label("Bits").or_(page.get_by_text("Bits per weight.")).first.wait_for()
            page.get_by_role("link", name="Several at once").click()
            page.get_by_label("Models of this service").get_by_role("button", name="tiny ").click()
            page.locator("[data-path=group_size] input").fill("16, 32")
            page.get_by_role("heading", name="Ready to run").wait_for()
            page.get_by_role("button", name="Submit 2 jobs").click()
            page.get_by_text("2 jobs").wait_for()
            links: list[str] = page.locator("a").evaluate_all("(links) => links.map((link) => link.href)")
            assert all(f"{PREFIX}/" in link for link in links)


def test_one_signs_in_where_others_can_connect(tmp_path: Path, open_page: OpenPage, monkeypatch: pytest.MonkeyPatch):
    """The key is asked for, becomes a session that scripts cannot read, and writes go through with it."""
    monkeypatch.setattr(ApiSettings, "loopback", property(lambda _: False))
    bearer: dict[str, Any] = {}

    def with_key(settings: ApiSettings) -> Any:  # noqa: ANN401 - the application
        database = Database(settings.database_url)
        with database.transaction() as repository:
            bearer["key"] = repository.add_api_key("browser", ["admin"])[1]
        database.dispose()
        return create_app(settings)

    monkeypatch.setattr(api_service, "create_app", with_key)
    with served_in(tmp_path) as service, open_page(url_of(service)) as page:
        dialog = page.get_by_role("dialog", name="Sign in")
        dialog.get_by_label("Key").fill("bm_wrong_key")
        dialog.get_by_role("button", name="Sign in").click()
        dialog.get_by_role("alert").wait_for()
        dialog.get_by_label("Key").fill(bearer["key"])
        dialog.get_by_role("button", name="Sign in").click()
        page.get_by_role("button", name="Sign out").wait_for()
        assert "session" not in page.evaluate("document.cookie")
        page.goto(f"{url_of(service)}#/keys")
        page.get_by_role("button", name="New key").click()
        form = page.get_by_role("dialog", name="New key")
        form.get_by_label("Name").fill("ci")
        form.get_by_text("jobs:read").click()
        form.get_by_role("button", name="Make the key").click()
        page.get_by_role("dialog", name="The new key").get_by_text("bm_").wait_for()
        page.get_by_role("button", name="I have it").click()
        page.get_by_role("button", name="Revoke ci").click()
        page.get_by_role("dialog").get_by_role("button", name="Revoke").click()
        page.get_by_text("Revoked").first.wait_for()
        page.get_by_role("button", name="Sign out").click()
        page.get_by_role("dialog", name="Sign in").wait_for()
