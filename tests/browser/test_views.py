"""Every view, wide and narrow, light and dark: axe finds nothing, nothing is wider than the screen; with pictures."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import pytest

from tests.browser.conftest import NARROW, ROOT, WIDE, OpenPage, picture
from tests.browser.staging import Staged

if TYPE_CHECKING:
    from playwright.sync_api import Page

AXE = ROOT / "web" / "node_modules" / "axe-core" / "axe.min.js"
# What axe-core knows of WCAG 2.2 A and AA, and of good practice beside it.
RUN_AXE = "async () => (await axe.run()).violations.map((v) => `${v.id}: ${v.nodes.map((n) => n.target).join(' | ')}`)"

VIEWS = {
    "overview": ("", "Overview"),
    "jobs": ("#/jobs", "Jobs"),
    "jobs-failed": ("#/jobs?state=failed", "Jobs"),
    "jobs-labels": ("#/jobs?label=study%3Abits&label=team%3Asearch%20and%20more", "Jobs"),
    "job-running": ("#/jobs/{running}", "SmolLM2-135M-Instruct"),
    "job-queued": ("#/jobs/{queued}", "SmolLM2-135M-Instruct"),
    "job-succeeded": ("#/jobs/{succeeded[0]}", "SmolLM2-135M-Instruct"),
    "job-failed": ("#/jobs/{failed}", "SmolLM2-135M-Instruct"),
    "job-budget": ("#/jobs/{budgeted}", "SmolLM2-135M-Instruct"),
    "job-cancelled": ("#/jobs/{cancelled}", "SmolLM2-135M-Instruct"),
    "new-job": ("#/new", "New job"),
    "clone": ("#/new?from={succeeded[2]}", "New job"),
    "compare": ("#/compare?job={succeeded[0]}&job={succeeded[1]}&job={succeeded[2]}&job={succeeded[3]}", "Compare"),
    "new-batch": ("#/batch", "New batch"),
    "compare-batch": ("#/compare?batch={batch}", "Compare"),
    "compare-choose": ("#/compare", "Compare"),
    "models": ("#/models", "Uploaded models"),
    "texts": ("#/texts", "Calibration texts"),
    "workers": ("#/workers", "Workers"),
    "keys": ("#/keys", "API keys"),
    "webhooks": ("#/webhooks", "Webhooks"),
}


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_fits_and_is_accessible(open_page: OpenPage, url: str, staged: Staged, view: str):
    """At 320 and 1440 pixels, in light and dark."""
    place, heading = VIEWS[view]
    with open_page(url + place.format(**vars_of(staged))) as page:
        page.evaluate(AXE.read_text())
        for theme, width in product(("light", "dark"), (WIDE, NARROW)):
            page.emulate_media(color_scheme=theme)
            page.set_viewport_size({"width": width, "height": 900})
            settle(page, heading)
            picture(page, f"{view}-{theme}-{width}")
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert page.evaluate(RUN_AXE) == []


def vars_of(staged: Staged) -> dict[str, object]:
    """Returns the staged ids by name."""
    return {name: getattr(staged, name) for name in staged.__slots__}


def settle(page: Page, heading: str) -> None:
    """Waits until the view is there, what it loads included."""
    from playwright.sync_api import expect  # noqa: PLC0415 - see conftest.py

    page.get_by_role("heading", name=heading, level=1).wait_for()
    expect(page.locator(".loading")).to_have_count(0)
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
