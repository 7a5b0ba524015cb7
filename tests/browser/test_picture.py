"""The picture in README.md is one of the page as it is: `make dashboard-picture` takes it anew."""

from __future__ import annotations

import os
from pathlib import Path

from tests.browser.conftest import PICTURES, ROOT, OpenPage
from tests.browser.staging import Staged
from tests.browser.test_views import settle

SIZE = {"width": 1280, "height": 800}
MOST_BYTES = 200_000


def test_the_overview_makes_a_small_picture(open_page: OpenPage, url: str, staged: Staged):
    """Of what runs, waits and is done; small enough for a repository."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    path = Path(os.environ.get("BITMILL_PICTURE", PICTURES / "readme.png"))
    with open_page(url) as page:
        page.set_viewport_size({"width": SIZE["width"], "height": SIZE["height"]})
        settle(page, "Overview")
        page.screenshot(path=ROOT / path)
    assert (ROOT / path).stat().st_size < MOST_BYTES
