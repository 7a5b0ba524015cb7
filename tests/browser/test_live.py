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
from tests.browser.staging import advance, fail, register, run, start, submit, succeed, warn_of_model
from tests.core.preflight.archives import folder_files, pack

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
        for words in ("11.63", "12.15", "1.045", "KL divergence", "95.8%", "269 MB", "904 MB"):
            assert words in told
        for words in ("21.1", "kernel on packed weights", "133 MB", "NF4", "12.52"):
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


def test_a_result_goes_to_the_hub(service: Service, open_page: OpenPage):
    """The token is asked for first, then the repository; the page tells how the upload ends."""
    register(service)
    job = succeed(service, 12.15, 118)
    with open_page(f"{url_of(service)}#/jobs/{job}") as page:
        card = page.locator(".card", has=page.get_by_role("heading", name="On the model hub"))
        card.get_by_text("The files are not on the hub.").wait_for()
        card.get_by_role("button", name="Publish to the hub").click()
        dialog = page.get_by_role("dialog", name="Token of the model hub")
        dialog.get_by_label("Token", exact=False).fill("hf_secret_of_mine")
        dialog.get_by_role("button", name="Store it").click()
        form = page.get_by_role("dialog", name="Publish to the hub")
        form.locator("[data-path=repo] input").fill("no-owner")
        form.get_by_role("button", name="Publish").click()
        form.get_by_role("alert").wait_for()
        form.locator("[data-path=repo] input").fill("acme/SmolLM2-135M-4bit")
        form.get_by_role("button", name="Publish").click()
        card.get_by_text("Pending").wait_for()
        with service.services.database.transaction() as repository:
            taken = repository.take_publication(60)
            assert taken is not None
            assert (taken.job_id, taken.repo, taken.private) == (job, "acme/SmolLM2-135M-4bit", True)
            repository.end_publication(taken, commit="4f" * 20, error=None, retry_seconds=None)
        card.get_by_text("Published").wait_for()
        card.get_by_text("4f4f4f4f4f4f").wait_for()


def test_a_deadline_is_written_in_any_unit(service: Service, open_page: OpenPage):
    """As it is typed; the request carries seconds, and a copy of the job shows them in the same unit again."""
    job = submit(service, deadline_s=5400)["id"]
    with open_page(f"{url_of(service)}#/new?from={job}") as page:
        deadline = page.locator("[data-path=deadline_s]")
        deadline.get_by_text("This is 5,400 seconds.").wait_for()
        assert deadline.locator("input").input_value() == "90"
        deadline.get_by_label("Deadline: unit").select_option("hours")
        assert deadline.locator("input").input_value() == "90"
        deadline.locator("input").fill("")
        with page.expect_response(lambda answer: "validate_only" in answer.url) as checked:
            deadline.locator("input").press_sequentially("1.5")
        assert deadline.locator("input").input_value() == "1.5"
        page.get_by_role("heading", name="Ready to run").wait_for()
        page.get_by_role("button", name="Submit").click()
        page.locator(".page-head .state.queued").wait_for()
        page.get_by_text("1 h 30 min after the submit").wait_for()
        assert checked.value.ok
        [newest, _] = service.client.get("/v1/jobs").json()["data"]
        assert newest["deadline_s"] == 5400


def test_numbers_are_typed_key_by_key(service: Service, open_page: OpenPage):
    """A field may be empty or end in a point while one types; the default comes back when one leaves it empty."""
    with open_page(f"{url_of(service)}#/new") as page:
        page.get_by_text("All options of the method").click()
        damp = page.locator("[data-path=damp_percent] input")
        default = damp.input_value()
        damp.press("Control+a")
        damp.press("Delete")
        assert damp.input_value() == ""
        damp.press_sequentially("0.02")
        assert damp.input_value() == "0.02"
        damp.fill("")
        damp.press("Tab")
        assert damp.input_value() == default


def test_a_source_of_calibration_is_chosen(service: Service, open_page: OpenPage):
    """Built in, of the hub by a short name or any other, or written by the model: the request names it."""
    with open_page(f"{url_of(service)}#/new") as page:
        page.get_by_label("Folder", exact=True).check()
        page.locator("[data-path='model/path'] input").fill("tiny")
        page.locator("[data-path='model/root'] input").fill("models")
        page.get_by_text("Ready to run").or_(page.get_by_text("This cannot run")).first.wait_for()
        source = page.locator("[data-path='calibration/set'] select")
        for choice in ("hub:wikitext2", "self"):
            with page.expect_request(lambda one: "validate_only" in one.url) as asked:
                source.select_option(choice)
            assert asked.value.post_data_json["calibration"]["set"] == choice
        source.select_option("hub:")
        with page.expect_request(lambda one: "validate_only" in one.url and "mine" in (one.post_data or "")) as asked:
            page.get_by_placeholder("owner/dataset").fill("acme/mine#body")
        assert asked.value.post_data_json["calibration"]["set"] == "hub:acme/mine#body"


def test_texts_are_stored_pinned_and_deleted(service: Service, open_page: OpenPage):
    """With what is in each; what the page says is what the API has."""
    with open_page(f"{url_of(service)}#/texts") as page:
        page.get_by_text("No text is stored.").wait_for()
        text = ("mills.txt", "text/plain", "\n".join(f"Line {n} of mills and bits." for n in range(300)).encode())
        page.locator(".drop input").set_input_files({"name": text[0], "mimeType": text[1], "buffer": text[2]})
        card = page.locator(".card", has=page.get_by_role("heading", name="mills.txt"))
        card.get_by_text(re.compile(r"^roughly [\d,]+")).wait_for()
        card.get_by_role("button", name="Pin").click()
        card.get_by_role("button", name="Unpin").wait_for()
        [held] = service.client.get("/v1/calibration-sets").json()["data"]
        assert (held["name"], held["pinned"]) == ("mills.txt", True)
        card.get_by_role("button", name="Delete").click()
        page.get_by_role("dialog").get_by_role("button", name="Delete for good").click()
        page.get_by_text("No text is stored.").wait_for()
        assert service.client.get("/v1/calibration-sets").json()["data"] == []


def test_uploaded_models_are_kept_used_and_deleted(service: Service, open_page: OpenPage):
    """From the archive to the end; a warning stands out until it is taken back, and a new job starts with the model."""
    folder = service.services.settings.model_roots[0].path / "tiny"
    archive = {"name": "mine.tar", "mimeType": "application/x-tar", "buffer": pack(folder_files(folder))}
    with open_page(f"{url_of(service)}#/models") as page:
        page.get_by_text("No model is uploaded.").wait_for()
        page.locator(".drop input").set_input_files({**archive, "buffer": b"no archive"})
        page.get_by_text(re.compile("cannot be read")).wait_for()
        page.locator(".drop input").set_input_files(archive)
        card = page.locator(".card", has=page.get_by_role("heading", name="mine.tar"))
        card.get_by_text("no day is set").wait_for()
        card.get_by_role("button", name="Pin").click()
        card.get_by_text("until it is deleted").wait_for()
        [held] = service.client.get("/v1/uploaded-models").json()["data"]
        assert held["pinned"]
        card.get_by_role("button", name="Unpin").click()
        card.get_by_text("no day is set").wait_for()
        warn_of_model(service, held["id"])
        page.reload()
        card.get_by_text(re.compile("^goes on ")).wait_for()
        card.get_by_label("Until").fill("2031-05-17")
        card.get_by_text(re.compile("^until .*2031")).wait_for()
        assert card.get_by_text(re.compile("^goes on ")).count() == 0
        assert service.client.get(f"/v1/uploaded-models/{held['id']}").json()["expiry_warned_at"] is None
        card.get_by_role("link", name="New job").click()
        chosen = page.get_by_label("Uploaded models").get_by_role("button", name="mine.tar")
        chosen.wait_for()
        assert chosen.get_attribute("aria-pressed") == "true"
        page.go_back()
        card.get_by_role("button", name="Delete").click()
        page.get_by_role("dialog").get_by_role("button", name="Delete for good").click()
        page.get_by_text("No model is uploaded.").wait_for()
        assert service.client.get("/v1/uploaded-models").json()["data"] == []


def test_a_key_is_changed(service: Service, open_page: OpenPage):
    """The form starts with what the key may do and take; a limit is taken away by emptying it."""
    quotas = {"jobs_in_flight": 5, "stored_bytes": 50_000_000_000}
    made = service.client.post("/v1/api-keys", json={"name": "ci", "scopes": ["jobs:read"], "quotas": quotas}).json()
    with open_page(f"{url_of(service)}#/keys") as page:
        page.get_by_role("button", name="Change ci").click()
        form = page.get_by_role("dialog", name="Change ci")
        form.get_by_text("It takes now: 0 jobs in flight").wait_for()
        stored_bytes = form.locator("[data-path='quotas/stored_bytes']")
        assert stored_bytes.locator("input").input_value() == "50"
        assert stored_bytes.locator("select").input_value() == "GB"
        form.locator("[data-path='quotas/jobs_in_flight'] input").fill("")
        stored_bytes.locator("select").select_option("TB")
        form.get_by_text("jobs:write").click()
        form.locator("[data-path=expires_at] input").fill("2031-05-17T12:30")
        form.get_by_role("button", name="Change the key").click()
        form.wait_for(state="detached")
        changed = service.client.get(f"/v1/api-keys/{made['id']}").json()
    assert sorted(changed["scopes"]) == ["jobs:read", "jobs:write"]
    assert (changed["quotas"]["jobs_in_flight"], changed["quotas"]["stored_bytes"]) == (None, 50_000_000_000_000)
    assert datetime.fromisoformat(changed["expires_at"]).astimezone().isoformat()[:16] == "2031-05-17T12:30"


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
