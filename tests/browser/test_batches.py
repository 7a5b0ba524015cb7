"""Batches on the page: what varies, what stands against it, what is stored, and the table that fills by itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.api.service import Service
from tests.browser.conftest import OpenPage, served_in, url_of
from tests.browser.staging import begin, finish, keep_plan, register, start, upload_model

if TYPE_CHECKING:
    from playwright.sync_api import Page


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """A service of the test's own."""
    with served_in(tmp_path) as running:
        register(running)
        yield running


def test_a_batch_is_submitted_and_compared(service: Service, open_page: OpenPage):
    """Each combination becomes a job of the options that its method has; the table follows them without reloading."""
    with open_page(f"{url_of(service)}#/batch") as page:
        choose_model(page, "SmolLM2-135M-Instruct")
        vary(page, method=("rtn",), bits=("3",))
        page.locator("[data-path=group_size] input").fill("16, 32")
        page.get_by_text("All options of the methods").click()
        page.locator("[data-path=damp_percent] input").fill("0.1")
        page.locator("[data-path='calibration/samples'] input").fill("8")
        page.get_by_label("Name of the batch").fill("rounding")
        page.get_by_role("heading", name="Ready to run").wait_for()
        assert "GPTQ · 3 bits · groups of 16" in page.get_by_label("Preflight").inner_text()
        page.get_by_role("button", name="Submit 8 jobs").click()
        page.get_by_role("heading", name="Compare", level=1).wait_for()
        page.get_by_text("rounding: 8 jobs").wait_for()
        job = begin(service)
        page.locator(".state.running").wait_for()
        finish(service, job, 12.15, 118)
        page.locator(".state.succeeded").wait_for()
        [listed] = service.client.get("/v1/batches").json()["data"]
        table = service.client.get(listed["batch"]).json()["table"]
        sent = {(row["method"], row["bits"], row["group_size"]) for row in table}
        assert sent == {(method, bits, size) for method in ("gptq", "rtn") for bits in (4, 3) for size in (16, 32)}
        assert {row["config"].get("damp_percent") for row in table} == {0.1, None}
        specs = [service.client.get(row["job"]).json()["spec"] for row in table]
        assert all(spec["evaluate"] for spec in specs)
        page.get_by_role("link", name="Choose others").click()
        page.get_by_role("link", name="rounding").click()
        page.get_by_text("rounding: 8 jobs").wait_for()
        page.goto(f"{url_of(service)}#/jobs/{job.id}")
        page.get_by_role("link", name="rounding").click()
        page.get_by_text("rounding: 8 jobs").wait_for()


def test_an_uploaded_model_is_one_of_a_batch(service: Service, open_page: OpenPage):
    """Beside a folder: chosen, taken back and chosen again; each job names its own source."""
    model = upload_model(service, "mine.tar")
    with open_page(f"{url_of(service)}#/batch") as page:
        choose_model(page, "SmolLM2-135M-Instruct")
        upload = page.get_by_label("Uploaded models").get_by_role("button", name="mine.tar")
        for pressed in ("true", "false", "true"):
            upload.click()
            assert upload.get_attribute("aria-pressed") == pressed
        page.locator("[data-path=group_size] input").fill("32")
        page.get_by_role("heading", name="Ready to run").wait_for()
        page.get_by_role("button", name="Submit 2 jobs").click()
        page.get_by_role("heading", name="Compare", level=1).wait_for()
        page.get_by_text("mine.tar").first.wait_for()
    jobs = service.client.get("/v1/jobs").json()["data"]
    assert {job["spec"]["model"]["source"] for job in jobs} == {"path", "upload"}
    assert {job["spec"]["model"].get("id") for job in jobs} == {model, None}


def test_what_cannot_run_is_named_with_its_jobs(service: Service, open_page: OpenPage):
    """Once for all jobs that it concerns, before anything is stored; without it the batch can go."""
    with open_page(f"{url_of(service)}#/batch") as page:
        choose_model(page, "SmolLM2-135M-Instruct")
        choose_model(page, "tiny")
        sizes = page.locator("[data-path=group_size] input")
        sizes.fill("32, 7")
        page.get_by_role("heading", name="This cannot run").wait_for()
        told = page.locator(".refusal").inner_text()
        assert told.count("group_size") >= 1
        assert "tiny, GPTQ · 4 bits · groups of 7" in told
        assert "groups of 32" not in told
        assert page.get_by_role("button", name="Submit 4 jobs").is_disabled()
        sizes.fill("32")
        page.get_by_role("heading", name="Ready to run").wait_for()
        assert service.client.get("/v1/batches").json()["data"] == []


def test_a_method_shows_its_own_options_and_sends_no_others(service: Service, open_page: OpenPage):
    """What was chosen for another method neither shows nor stands in the way, and is there again with that method."""
    with open_page(f"{url_of(service)}#/new") as page:
        choose_model(page, "SmolLM2-135M-Instruct")
        page.locator("[data-path=group_size] input").fill("32")
        page.locator("[data-path='calibration/samples'] input").fill("8")
        page.get_by_text("All options of the method").click()
        page.locator("[data-path=damp_percent] input").fill("0.1")
        page.locator("[data-path=method]").get_by_label("rtn").check()
        page.locator("[data-path=damp_percent]").wait_for(state="detached")
        page.locator("[data-path='calibration/samples']").wait_for(state="detached")
        page.get_by_role("heading", name="Ready to run").wait_for()
        page.locator("[data-path=method]").get_by_label("gptq").check()
        assert page.locator("[data-path=damp_percent] input").input_value() == "0.1"


def test_a_budget_shows_what_it_chose_from(service: Service, open_page: OpenPage):
    """As soon as the job has planned, by itself: the curve with its numbers behind, and the grids given out."""
    job = start(service, budget={"bits": 4.5})
    with open_page(f"{url_of(service)}#/jobs/{job.id}") as page:
        page.get_by_role("heading", name="SmolLM2-135M-Instruct", level=1).wait_for()
        keep_plan(service, job)
        card = page.locator(".card", has=page.get_by_role("heading", name="Chosen under the budget"))
        card.wait_for()
        for words in ("4.497 bits per weight", "59.7 MB of 59.7 MB", "in 4 bits, groups of 32"):
            assert words in card.inner_text()
        card.get_by_text("As a table").click()
        table = card.get_by_role("region", name="What other sizes would give")
        table.get_by_text("4 bits, groups of 64").wait_for()
        assert table.get_by_text("chosen").count() == 1


def choose_model(page: Page, name: str) -> None:
    """Presses one of the folders."""
    page.get_by_label("Models of this service").get_by_role("button", name=f"{name} ").click()


def vary(page: Page, **chosen: tuple[str, ...]) -> None:
    """Adds values to what varies."""
    for path, values in chosen.items():
        for value in values:
            page.locator(f"[data-path={path}]").get_by_label(value, exact=True).check()
