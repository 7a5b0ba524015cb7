"""What `--calib` names: a file, a data set of the hub, or text that the model writes itself; and what is said of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cli.errors import CliError, ExitCode
from core.calibration.builtin import builtin_text
from core.calibration.hub import PREFIX, SELF_SET, parse_hub
from core.calibration.lint import lint
from core.calibration.texts import read_documents

if TYPE_CHECKING:
    from collections.abc import Callable

    from cli.client import ServiceClient
    from core.calibration.documents import Document
    from core.calibration.windows import CalibrationWindows
    from core.configs import CalibrationConfig

WORDS = f"Text or JSONL file ('text' or 'messages'), {PREFIX}wikitext2 and other data sets, or {SELF_SET}."
TEXT_FILE = "calibration.jsonl"


@dataclass(frozen=True, slots=True)
class CalibrationSource:
    """Where text comes from. name: what `--calib` was given, None for the built-in text."""

    name: str | None

    @property
    def stored_elsewhere(self) -> bool:
        """Whether a service gets it by its name alone."""
        return self.name is not None and (self.name == SELF_SET or self.name.startswith(PREFIX))

    def set_for(self, client: ServiceClient) -> str | None:
        """Returns what a request names it by, after an upload where it is a file; None for the built-in text."""
        if self.stored_elsewhere:
            return self.name
        return None if self.file is None else str(client.upload("/v1/calibration-sets", self.file)["id"])

    @property
    def file(self) -> Path | None:
        """Returns the file; None where the text is no file of the user's."""
        return None if self.name is None or self.stored_elsewhere else Path(self.name)

    def check(self) -> None:
        """Raises InvalidConfigError or CliError where there is no such source."""
        if self.name is not None and self.name.startswith(PREFIX):
            parse_hub(self.name)
        if self.file is not None and not self.file.is_file():
            raise CliError(
                ExitCode.USAGE,
                f"--calib {self.name}: there is no such file.",
                hint=f"Give a file, {PREFIX}wikitext2, {PREFIX}OWNER/DATASET or {SELF_SET}.",
                code="calibration_not_found",
                field="--calib",
            )

    def documents(
        self, model_dir: Path, config: CalibrationConfig, work_dir: Path, advance: Callable[[int, int], None]
    ) -> list[Document]:
        """Returns the text's documents, fetched or written into the work folder where it is no file.

        advance is told how far the model is with writing, and may raise to stop.
        """
        if self.name is None:
            return list(builtin_text("calibration"))
        if self.file is not None:
            return list(read_documents(self.file))
        work_dir.mkdir(parents=True, exist_ok=True)
        text = work_dir / TEXT_FILE
        if self.name == SELF_SET:
            from core.evaluation.self_text import SelfText, write_self_text

            write_self_text(model_dir, SelfText.for_draw(config), text, advance=advance)
        else:
            _fetch(self.name, text)
        return list(read_documents(text))


def remarks(source: CalibrationSource, documents: list[Document]) -> tuple[str, ...]:
    """Returns what a look over the text found; nothing of the built-in text, which is known."""
    return () if source.name is None else lint(documents).warnings


def draw_line(source: CalibrationSource, windows: CalibrationWindows, seed: int) -> str:
    """Returns one line about what was drawn from what."""
    used = windows.samples * windows.seq_len
    return (
        f"Calibration: {source.name or 'built-in text'}, {windows.samples} x {windows.seq_len} = {used:,} tokens of "
        f"{windows.tokens_available:,} in {windows.documents:,} documents, seed {seed}"
    )


def _fetch(name: str, out: Path) -> None:
    import httpx
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    from cli.settings import hub_settings
    from core.calibration.hub_download import Hub, fetch_dataset

    settings = hub_settings()
    hub = Hub(endpoint=settings.endpoint, token=settings.token, cache_dir=settings.cache_dir)
    try:
        fetch_dataset(parse_hub(name), hub, out)
    except (HfHubHTTPError, LocalEntryNotFoundError, httpx.HTTPError, OSError) as error:
        raise CliError(
            ExitCode.UNAVAILABLE,
            f"{name} could not be fetched from {settings.endpoint}: {_first_line(error)}",
            hint="Try again, set BITMILL_HUB_ENDPOINT to a mirror, or give a file.",
            code="hub_unavailable",
        ) from error


def _first_line(error: Exception) -> str:
    return re.split(r"[\r\n]", str(error).strip())[0]
