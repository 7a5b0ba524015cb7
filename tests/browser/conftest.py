"""A Chromium that is the machine's own, a service for it to look at, and a picture of every view that is opened."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from store.session import Database
from tests.api.conftest import make_settings
from tests.api.service import Service, serve
from tests.browser.staging import MODEL, Staged, stage
from tests.core.preflight.folders import make_llama

if TYPE_CHECKING:
    # Playwright is installed by `make test-web` alone; the other tests are collected without it.
    from playwright.sync_api import Browser, Page

ROOT = Path(__file__).parents[2]
PICTURES = ROOT / "var" / "test-web"
WIDE, NARROW = 1440, 320
# Nothing that a browser does in the background may leave the machine.
QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)

OpenPage = Callable[..., AbstractContextManager["Page"]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here needs a browser."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("browser")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Tells what tests measured."""
    for report in terminalreporter.getreports("passed"):
        if Path(report.fspath).parent.name == Path(__file__).parent.name:
            for name, told in report.user_properties:
                terminalreporter.write_line(f"{name}: {told}")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """One Chromium for all tests."""
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - see above

    chromium = shutil.which("chromium")
    assert chromium is not None, "these tests need Chromium; on Debian: apt-get install chromium"
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium, args=list(QUIET))
        yield launched
        launched.close()


@pytest.fixture
def open_page(browser: Browser) -> OpenPage:
    """Opens a page of a service, and at its end says what went wrong in it: errors, refused sources, other origins."""

    @contextmanager
    def opened(url: str, *, width: int = WIDE, theme: str = "light") -> Iterator[Page]:
        context = browser.new_context(
            viewport={"width": width, "height": 900},
            color_scheme=theme,  # type: ignore[arg-type]  # one of its literals
            reduced_motion="reduce",
            accept_downloads=True,
        )
        page = context.new_page()
        faults: list[str] = []
        page.on("pageerror", lambda error: faults.append(f"error: {error}"))
        page.on("console", lambda line: faults.append(line.text) if is_fault(line.text) else None)
        page.on("request", lambda request: faults.append(request.url) if is_foreign(request.url, url) else None)
        page.goto(url)
        try:
            yield page
        finally:
            context.close()
        assert faults == []

    return opened


def is_fault(text: str) -> bool:
    """Whether a line of the console tells of a source that the security policy refused."""
    return "Content Security Policy" in text


def is_foreign(requested: str, url: str) -> bool:
    """Whether a request leaves the service."""
    origin = "/".join(url.split("/")[:3])
    return not requested.startswith((f"{origin}/", "blob:", "data:"))


def picture(page: Page, name: str) -> None:
    """Keeps a picture of the whole page."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=PICTURES / f"{name}.png", full_page=True)


@contextmanager
def served_in(folder: Path) -> Iterator[Service]:
    """Serves an API on SQLite from this process, with two models under its root."""
    (folder / "models").mkdir()
    for name in (MODEL, "tiny"):
        make_llama(folder / "models" / name, max_position_embeddings=2048)
    settings = make_settings(folder, folder / "models", f"sqlite:///{folder}/bitmill.db")
    database = Database(settings.database_url)
    database.upgrade()
    database.dispose()
    with serve(settings) as running:
        yield running


def url_of(service: Service) -> str:
    """Returns where a service's page is."""
    return f"{str(service.client.base_url).rstrip('/')}/"


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service for those tests that only look."""
    with served_in(tmp_path_factory.mktemp("served")) as running:
        yield running


@pytest.fixture(scope="session")
def staged(served: Service) -> Staged:
    """Jobs in every state."""
    return stage(served)


@pytest.fixture(scope="session")
def url(served: Service) -> str:
    """Where the page is."""
    return url_of(served)
