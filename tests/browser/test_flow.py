"""The whole way in a browser, on `bitmill up` with the real engine: submit, watch, download, cancel, fail, restart."""

from __future__ import annotations

import hashlib
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.browser.conftest import ROOT, OpenPage
from tests.core.preflight.archives import folder_files, pack
from tests.ops.service import RunningService, running_service, wait_until
from tests.worker.models import write_tiny_llama

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

# Of one job, its process started and its kernels compiled on a machine that is busy.
PATIENCE_MS = 240_000
LONG_BLOCKS = 60


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with a small model, one that takes a while, and one whose weights are broken."""
    root = tmp_path_factory.mktemp("models")
    write_tiny_llama(root / "tiny", blocks=4, hidden=64)
    write_tiny_llama(root / "long", blocks=LONG_BLOCKS, hidden=128)
    broken = write_tiny_llama(root / "broken", blocks=2, hidden=64) / "model.safetensors"
    weights = load_file(broken)
    weights["model.layers.1.mlp.down_proj.weight"][0, 0] = np.nan
    save_file(weights, broken, metadata={"format": "pt"})
    return root


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Iterator[RunningService]:
    """`bitmill up`, ready."""
    folder = tmp_path_factory.mktemp("up")
    with running_service(folder / "data", models, folder / "cache") as running:
        yield running


def test_from_the_form_to_bytes_that_match(service: RunningService, open_page: OpenPage, tmp_path: Path):
    """The preflight says yes, the job is watched to its end without reloading, and every file is what it should be."""
    with open_page(f"{service.url}/#/new") as page:
        fill_form(page, "tiny")
        page.get_by_role("button", name="Submit").click()
        page.evaluate("window.sameDocument = true")
        page.get_by_role("heading", name="tiny", level=1).wait_for()
        page.locator(".page-head .state.succeeded").wait_for(timeout=PATIENCE_MS)
        page.get_by_text("Block quantized").first.wait_for()
        assert page.evaluate("window.sameDocument") is True
        sums = read_sums(page, tmp_path)
        assert {"config.json", "model.safetensors", "tokenizer.json"} <= sums.keys()
        for name, sha256 in sums.items():
            path = download(page, page.get_by_role("link", name=f"Download {name}", exact=True), tmp_path)
            assert hashlib.sha256(path.read_bytes()).hexdigest() == sha256
        archive = download(page, page.get_by_role("link", name=re.compile("Download zip")), tmp_path)
        assert archive.read_bytes()[:2] == b"PK"


def test_the_readme_s_way_leads_to_an_artifact(service: RunningService, open_page: OpenPage, tmp_path: Path):
    """What the README says to choose and press, in its order and from the address on, and nothing else."""
    steps = re.findall(r"\*\*(.+?)\*\*", (ROOT / "README.md").read_text().partition("A first job there:")[2])
    new, group_size, submit_it, download_it = steps
    with open_page(f"{service.url}/") as page:
        page.get_by_role("link", name=new).first.click()
        page.get_by_label("Models of this service").get_by_role("button", name=re.compile("^tiny ")).click()
        page.get_by_role("heading", name="This cannot run").wait_for()
        page.get_by_label("Preflight").get_by_role("button", name=group_size, exact=True).click()
        page.get_by_role("heading", name="Ready to run").wait_for()
        page.get_by_role("button", name=submit_it).click()
        page.locator(".page-head .state.succeeded").wait_for(timeout=PATIENCE_MS)
        archive = download(page, page.get_by_role("link", name=re.compile(f"^{download_it}")), tmp_path)
        page.get_by_role("region", name="transformers").wait_for()
    with zipfile.ZipFile(archive) as files:
        assert files.testzip() is None
        names = {Path(name).name for name in files.namelist()}
    assert {"model.safetensors", "config.json", "SHA256SUMS"} <= names


def test_what_cannot_run_is_refused_beside_its_field(service: RunningService, open_page: OpenPage):
    """Before it is submitted, with the reason and what to do."""
    with open_page(f"{service.url}/#/new") as page:
        fill_form(page, "tiny")
        group = field(page, "group_size")
        group.fill("48")
        page.get_by_role("heading", name="This cannot run").wait_for()
        assert group.get_attribute("aria-invalid") == "true"
        assert page.get_by_role("button", name="Submit").is_disabled()
        page.get_by_label("Preflight").get_by_role("button", name="32", exact=True).click()
        page.get_by_role("heading", name="Ready to run").wait_for()
        assert group.input_value() == "32"


def test_an_archive_is_uploaded_and_quantized(
    service: RunningService, models: Path, open_page: OpenPage, tmp_path: Path
):
    """It is chosen once it is there; what is no archive is refused in the service's words."""
    archive = tmp_path / "mine.tar.gz"
    archive.write_bytes(pack(folder_files(models / "tiny"), "tar.gz"))
    with open_page(f"{service.url}/#/new") as page:
        page.get_by_role("radio", name="Upload").check()
        chooser = page.locator(".folders + .drop input[type=file]")
        chooser.set_input_files({"name": "no.tar", "mimeType": "application/x-tar", "buffer": b"no archive"})
        page.get_by_text(re.compile("cannot be read")).wait_for()
        chooser.set_input_files(archive)
        chosen = page.get_by_label("Uploaded models").get_by_role("button", name=re.compile("^mine.tar.gz"))
        chosen.wait_for()
        assert chosen.get_attribute("aria-pressed") == "true"
        field(page, "group_size").fill("32")
        page.get_by_role("heading", name="Ready to run").wait_for()
        page.get_by_role("button", name="Submit").click()
        page.get_by_role("heading", name="mine.tar.gz", level=1).wait_for()
        page.locator(".page-head .state.succeeded").wait_for(timeout=PATIENCE_MS)


def test_a_dropped_text_is_counted_and_used(service: RunningService, open_page: OpenPage):
    """The file that was chosen is the one that the request names."""
    text = "\n".join(f"Line {number} of a text about mills and bits." for number in range(200))
    with open_page(f"{service.url}/#/new") as page:
        fill_form(page, "tiny")
        page.locator(".drop").evaluate(
            """(zone, text) => {
              const data = new DataTransfer();
              data.items.add(new File([text], "mills.txt", { type: "text/plain" }));
              zone.dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }));
            }""",
            text,
        )
        page.get_by_text(re.compile(r"^1 document, 8\.\d kB, roughly")).wait_for()
        assert page.locator("[data-path='calibration/set'] option:checked").inner_text() == "mills.txt"
        # The check that the drop began may still be on its way: it is given up for the next one.
        with page.expect_response(lambda answer: '"bits":8' in (answer.request.post_data or "")) as checked:
            page.locator("[data-path=bits]").get_by_label("8").check()
        assert checked.value.json()["spec"]["calibration"]["set"].startswith("cal_")


def test_a_running_job_is_cancelled(service: RunningService, open_page: OpenPage):
    """By the key, after a question; the page says `cancelling` or `cancelled` by itself."""
    job = submit(service, "long")
    with open_page(f"{service.url}/#/jobs/{job}") as page:
        page.locator(".page-head .state.running").wait_for(timeout=PATIENCE_MS)
        page.keyboard.press("c")
        page.get_by_role("dialog").get_by_role("button", name="Cancel the job").click()
        page.locator(".page-head .state.cancelled").wait_for(timeout=PATIENCE_MS)
        page.get_by_role("button", name="Retry").wait_for()


def test_a_failure_says_what_to_do(service: RunningService, open_page: OpenPage):
    """In plain words, with the last lines of the log; a retry queues it again."""
    job = submit(service, "broken")
    with open_page(f"{service.url}/#/jobs/{job}") as page:
        page.locator(".page-head .state.failed").wait_for(timeout=PATIENCE_MS)
        failure = page.locator(".failure")
        failure.get_by_text("What to do").wait_for()
        failure.get_by_role("region", name="Last lines of the log").wait_for()
        told = httpx.get(f"{service.url}/v1/jobs/{job}", trust_env=False).json()["error"]
        assert told["message"] in failure.inner_text()
        assert told["hint"] in failure.inner_text()
        failure.get_by_role("button", name="Retry as it is").click()
        page.get_by_text("Queued again").wait_for()
        page.locator(".page-head .state.failed").wait_for(state="detached")


def test_the_stream_goes_on_behind_the_last_event_after_a_restart(service: RunningService, open_page: OpenPage):
    """The API is killed and started again; what happened meanwhile shows without reloading."""
    with open_page(f"{service.url}/#/jobs") as page:
        page.get_by_title("Live: changes appear by themselves").wait_for()
        asked: list[str] = []
        page.on("request", lambda one: asked.append(one.headers.get("last-event-id", "")))
        service.child("uvicorn").kill()
        page.get_by_text(re.compile("Connecting again|Not reachable")).wait_for(timeout=PATIENCE_MS)
        wait_until(service.ready, 120)
        job = submit(service, "tiny")
        page.locator(f"[data-job={job}]").wait_for(timeout=PATIENCE_MS)
        page.get_by_title("Live: changes appear by themselves").wait_for(timeout=PATIENCE_MS)
        assert any(asked)


def field(page: Page, path: str) -> Locator:
    """Returns the input of one of the request's fields."""
    return page.locator(f"[data-path='{path}'] input")


def fill_form(page: Page, model: str) -> None:
    """Chooses the model among those that are there and a job that is quickly done; waits for the preflight."""
    page.get_by_label("Models of this service").get_by_role("button", name=re.compile(f"^{model} ")).click()
    assert field(page, "model/path").input_value() == model
    assert field(page, "model/root").input_value() == "models"
    field(page, "group_size").fill("32")
    field(page, "calibration/samples").fill("8")
    field(page, "calibration/seq_len").fill("64")
    page.get_by_role("heading", name="Ready to run").wait_for()


def submit(service: RunningService, model: str) -> str:
    """Submits a job on a model by HTTP."""
    body = {
        "model": {"source": "path", "root": "models", "path": model},
        "group_size": 32,
        "calibration": {"samples": 8, "seq_len": 64},
    }
    answer = httpx.post(f"{service.url}/v1/jobs", json=body, trust_env=False, timeout=30)
    assert answer.status_code == 202, answer.text
    job: str = answer.json()["id"]
    return job


def download(page: Page, link: Locator, folder: Path) -> Path:
    """Clicks a link and keeps the file that comes."""
    with page.expect_download() as download:
        link.click()
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    return path


def read_sums(page: Page, folder: Path) -> dict[str, str]:
    """Downloads SHA256SUMS and returns the hash of each file."""
    path = download(page, page.get_by_role("link", name="SHA256SUMS", exact=True), folder)
    lines = [line.split(maxsplit=1) for line in path.read_text().splitlines()]
    return {name.lstrip("*"): sha256 for sha256, name in lines}
