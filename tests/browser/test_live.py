"""The page as it is used: filters, keys, selections, news without reloading and without a jump."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.api.service import Service
from tests.browser.conftest import OpenPage, served_in, url_of
from tests.browser.staging import advance, fail, register, run, start, submit, succeed

if TYPE_CHECKING:
    from playwright.sync_api import Page

# A number that grows to the left within its own place counts some hundred-thousandths; a line that moves, far more.
SHIFT_OF_A_LINE = 0.001
# How far things moved on the screen since it was asked for, in the units of the browser's own measure.
WATCH_SHIFTS = """() => {
  window.shifted = 0;
  new PerformanceObserver((list) => list.getEntries().forEach((entry) => (window.shifted += entry.value)))
    .observe({ type: "layout-shift" });
}"""


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """A service of the test's own."""
    with served_in(tmp_path) as running:
        yield running


def test_progress_comes_by_itself_and_moves_nothing(service: Service, open_page: OpenPage):
    """The list and the overview show each block as it is done; no other line changes its place."""
    register(service)
    job = start(service)
    advance(service, job, 3)
    for _ in range(5):
        submit(service)
    for place, shown, steps in (("#/jobs", "Jobs", (4, 5, 6)), ("", "Overview", (7, 8, 9))):
        with open_page(url_of(service) + place) as page:
            page.get_by_role("heading", name=shown, level=1).wait_for()
            page.get_by_role("progressbar").first.wait_for()
            page.get_by_title("Live: changes appear by themselves").wait_for()
            page.evaluate(WATCH_SHIFTS)
            for blocks in steps:
                advance(service, job, blocks)
                bar = page.locator(f"[role=progressbar][aria-valuetext$='block {blocks} of 30']")
                bar.first.wait_for()
            assert page.evaluate("window.shifted") < SHIFT_OF_A_LINE


def test_filters_live_in_the_address(service: Service, open_page: OpenPage):
    """What is chosen can be reloaded, sent to somebody and taken back."""
    failed, queued = fail(service), submit(service, labels={"team": "search"})["id"]
    with open_page(f"{url_of(service)}#/jobs") as page:
        expect_rows(page, queued, failed)
        page.get_by_label("Failed").check()
        expect_rows(page, failed)
        assert page.url.endswith("#/jobs?state=failed")
        page.reload()
        expect_rows(page, failed)
        page.goto(f"{url_of(service)}#/jobs?label=team%3Asearch")
        expect_rows(page, queued)
        page.get_by_label("Method").select_option("rtn")
        page.get_by_text("No job fits these filters.").wait_for()


def test_labels_with_spaces_are_filtered_by(service: Service, open_page: OpenPage):
    """Each label is added and taken away by itself; what is no label is not asked for."""
    labels = {"study": "bits per weight: 3", "team": "search"}
    both, one = submit(service, labels=labels)["id"], submit(service, labels={"team": "search"})["id"]
    with open_page(f"{url_of(service)}#/jobs") as page:
        add = page.get_by_label("Add a label")
        for label, rows in (("team:search", (both, one)), ("study:bits per weight: 3", (both,))):
            add.fill(label)
            add.press("Enter")
            expect_rows(page, *rows)
        page.reload()
        expect_rows(page, both)
        page.get_by_role("button", name="Remove the label study:bits per weight: 3").click()
        expect_rows(page, both, one)
        add.fill("nonsense")
        add.press("Enter")
        assert page.url.endswith("?label=team%3Asearch")


def test_files_are_pinned_and_kept_until_a_day(service: Service, open_page: OpenPage):
    """What is chosen is stored by the API and shown, and can be taken back."""
    register(service)
    job = succeed(service, 12.15, 118)
    with open_page(f"{url_of(service)}#/jobs/{job}") as page:
        page.get_by_text("No day is set on which the files go.").wait_for()
        page.get_by_role("button", name="Pin", exact=True).click()
        page.get_by_text("Pinned: the files stay until they are deleted.").wait_for()
        assert stored(service, job)["pinned"] is True
        page.get_by_role("button", name="Unpin").click()
        page.get_by_label("Keep until the end of").fill("2031-05-17")
        page.get_by_text(re.compile(r"^The files go on .*2031")).wait_for()
        ends = datetime.fromisoformat(stored(service, job)["expires_at"]).astimezone()
        assert (ends.date().isoformat(), ends.hour) == ("2031-05-17", 23)
        page.get_by_label("Keep until the end of").fill("")
        page.get_by_text("No day is set on which the files go.").wait_for()


def test_an_evaluation_is_told_in_words(service: Service, open_page: OpenPage):
    """Every measure, both answers, and what the rate of decoding was measured with."""
    register(service)
    job = succeed(service, 12.15, 118)
    with open_page(f"{url_of(service)}#/jobs/{job}") as page:
        card = page.locator(".card", has=page.get_by_role("heading", name="Against the float model"))
        card.wait_for()
        told, measured = card.inner_text(), stored(service, job)["evaluation"]
        for words in ("11.63", "12.15", "1.045", "KL divergence", "95.8%", "269 MB", "21.1", "expanded", "904 MB"):
            assert words in told
        for answer in ("float", "quantized"):
            assert measured["sample"][answer] in told


def test_a_hub_token_is_stored_and_forgotten(service: Service, open_page: OpenPage):
    """It goes to the API and is not shown again; forgetting it asks first."""
    with open_page(f"{url_of(service)}#/keys") as page:
        page.get_by_role("button", name="Store a token").click()
        dialog = page.get_by_role("dialog", name="Token of the model hub")
        dialog.get_by_label("Token", exact=False).fill("hf_secret_of_mine")
        dialog.get_by_role("button", name="Store it").click()
        page.get_by_text(re.compile("^Stored on ")).wait_for()
        assert service.client.get("/v1/hub-token").json()["stored"] is True
        assert "hf_secret_of_mine" not in page.content()
        page.get_by_role("button", name="Forget it").click()
        page.get_by_role("dialog").get_by_role("button", name="Forget it").click()
        page.get_by_text(re.compile("^None is stored")).wait_for()
        assert service.client.get("/v1/hub-token").json()["stored"] is False


def test_pages_come_as_one_scrolls(service: Service, open_page: OpenPage):
    """Sixty jobs are two pages; a job that is submitted meanwhile comes on top and hides none."""
    for _ in range(60):
        submit(service)
    with open_page(f"{url_of(service)}#/jobs") as page:
        page.locator("[data-row]").nth(49).wait_for()
        newest = submit(service)["id"]
        page.locator(f"[data-job={newest}]").wait_for()
        page.mouse.wheel(0, 20_000)
        page.locator("[data-row]").nth(60).wait_for()
        ids = page.locator("[data-row]").evaluate_all("(rows) => rows.map((row) => row.dataset.job)")
        assert len(ids) == len(set(ids)) == 61
        assert ids[0] == newest


def test_several_jobs_are_cancelled_at_once(service: Service, open_page: OpenPage):
    """After a question, and only those that were chosen."""
    first, second, third = (submit(service)["id"] for _ in range(3))
    with open_page(f"{url_of(service)}#/jobs") as page:
        for job in (first, third):
            page.get_by_label(f"Select {job}").check()
        chosen = page.get_by_role("region", name="Selected jobs")
        chosen.get_by_role("button", name="Cancel 2").click()
        page.get_by_role("button", name="Cancel 2 jobs").click()
        for job in (first, third):
            page.locator(f"[data-job={job}] .state.cancelled").wait_for()
        assert page.locator(f"[data-job={second}] .state").inner_text() == "Queued"


def test_everything_is_at_hand_on_the_keyboard(service: Service, open_page: OpenPage):
    """`/` searches, `j` and `k` walk, Enter opens, `x` selects, `c` cancels, `n` makes a job, `?` helps."""
    older, newer = submit(service)["id"], submit(service)["id"]
    with open_page(f"{url_of(service)}#/jobs") as page:
        page.locator("[data-row]").nth(1).wait_for()
        page.keyboard.press("/")
        assert page.evaluate("document.activeElement.type") == "search"
        page.keyboard.press("Escape")
        page.keyboard.press("j")
        page.keyboard.press("j")
        assert focused(page) == older
        page.keyboard.press("k")
        assert focused(page) == newer
        page.keyboard.press("x")
        page.get_by_text("1 job selected").wait_for()
        page.keyboard.press("c")
        page.get_by_role("button", name="Cancel the job").click()
        page.locator(f"[data-job={newer}] .state.cancelled").wait_for()
        page.keyboard.press("?")
        page.get_by_role("dialog", name="Keyboard").wait_for()
        page.keyboard.press("Escape")
        page.locator("dialog").wait_for(state="detached")
        page.keyboard.press("j")
        page.keyboard.press("Enter")
        page.get_by_role("heading", name="SmolLM2-135M-Instruct", level=1).wait_for()
        page.keyboard.press("n")
        page.get_by_role("heading", name="New job", level=1).wait_for()


def test_a_log_is_searched(service: Service, open_page: OpenPage):
    """Lines that hold every word stay."""
    job = run(service, 5)
    with open_page(f"{url_of(service)}#/jobs/{job}") as page:
        log = page.get_by_role("region", name="Log")
        log.wait_for()
        page.get_by_placeholder("Search").fill("block solved 3")
        page.get_by_text(re.compile(r"^1 of \d+ lines$")).wait_for()
        assert "block 3 solved" in log.inner_text()


def test_a_drained_worker_shows_it(service: Service, open_page: OpenPage):
    """The button writes through the API, and is taken back by the same button."""
    register(service)
    with open_page(f"{url_of(service)}#/workers") as page:
        page.get_by_role("button", name="Drain").click()
        page.get_by_text("Drained").wait_for()
        page.get_by_role("button", name="Let it work again").click()
        page.get_by_text("Idle").wait_for()


def stored(service: Service, job: str) -> dict[str, Any]:
    """Returns the job as the API tells it."""
    found: dict[str, Any] = service.client.get(f"/v1/jobs/{job}").json()
    return found


def expect_rows(page: Page, *jobs: str) -> None:
    """Waits until the list shows these jobs and no others."""
    from playwright.sync_api import expect  # noqa: PLC0415 - see conftest.py

    expect(page.locator("[data-row]")).to_have_count(len(jobs))
    for job in jobs:
        page.locator(f"[data-job={job}]").wait_for()


def focused(page: Page) -> str:
    """Returns the job of the row that holds the focus."""
    found: str = page.evaluate("document.activeElement.closest('[data-row]').dataset.job")
    return found
