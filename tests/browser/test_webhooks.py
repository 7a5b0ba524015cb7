"""The webhooks view as it is used, on `bitmill up`: a worker signs and sends, a receiver on this machine takes it."""

from __future__ import annotations

from pathlib import Path

import httpx

from tests.browser.conftest import OpenPage
from tests.ops.service import running_service
from tests.worker.receiver import receiver

# Of a worker that may be starting yet on a machine that is busy.
PATIENCE_MS = 120_000


def test_a_webhook_is_made_tried_sent_again_stopped_and_deleted(tmp_path: Path, open_page: OpenPage):
    """Everything by clicks; what the page says of each message is what the receiver saw."""
    (tmp_path / "models").mkdir()
    to_private = {"BITMILL_WEBHOOKS_TO_PRIVATE": "true"}
    with (
        receiver(500, 204) as taker,
        running_service(tmp_path / "data", tmp_path / "models", tmp_path / "cache", **to_private) as service,
        open_page(f"{service.url}/#/webhooks") as page,
    ):
        page.get_by_text("Nobody is told.").wait_for()
        page.get_by_role("button", name="New webhook").click()
        form = page.get_by_role("dialog", name="New webhook")
        form.locator("[data-path=url] input").fill(taker.url)
        form.locator("[data-path=name] input").fill("build server")
        form.get_by_role("button", name="Make the webhook").click()
        secret = page.get_by_role("dialog", name="The signing secret")
        assert secret.locator("pre").inner_text().startswith("whsec_")
        secret.get_by_role("button", name="I have it").click()
        page.get_by_role("heading", name="build server").wait_for()

        page.get_by_role("button", name="Send a test").click()
        messages = page.get_by_role("region", name="Messages")
        messages.get_by_text("Pending, 1 tried").wait_for(timeout=PATIENCE_MS)
        messages.get_by_text("500").wait_for()
        messages.get_by_role("button", name="again").click()
        messages.get_by_text("Delivered").wait_for(timeout=PATIENCE_MS)
        messages.get_by_text("204").wait_for()
        assert len(taker.messages) == 2
        first, second = taker.messages
        assert first.headers["webhook-id"] == second.headers["webhook-id"]

        page.get_by_role("button", name="Stop").click()
        page.get_by_role("button", name="Start").wait_for()
        [webhook] = httpx.get(f"{service.url}/v1/webhooks", trust_env=False).json()["data"]
        assert (webhook["name"], webhook["url"], webhook["enabled"]) == ("build server", taker.url, False)

        page.get_by_role("button", name="Delete").click()
        page.get_by_role("dialog").get_by_role("button", name="Delete").click()
        page.get_by_text("Nobody is told.").wait_for()
        assert httpx.get(f"{service.url}/v1/webhooks", trust_env=False).json()["data"] == []
