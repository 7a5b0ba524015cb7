"""Opens the store for the commands that work on the database itself."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from pydantic import ValidationError

from cli.errors import CliError, ExitCode
from store.session import Database
from store.settings import StoreSettings, settings_from_env

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def store_settings(data_dir: Path | None) -> StoreSettings:
    """Returns the settings of the environment, with the data directory from the command line where one is given.

    Raises CliError naming the variable that is wrong.
    """
    try:
        return settings_from_env() if data_dir is None else StoreSettings(data_dir=data_dir)
    except ValidationError as error:
        first = error.errors()[0]
        place = "_".join(str(part) for part in first["loc"])
        name = f"BITMILL_{place}".upper() if place else "A BITMILL_ variable"
        raise CliError(
            ExitCode.USAGE,
            f"{name} is refused: {first['msg']}.",
            hint="Correct the environment variable and run the command again.",
            code="bad_environment",
            field=name,
        ) from error


@contextmanager
def open_database(data_dir: Path | None) -> Iterator[Database]:
    """Yields the database of the settings and closes it."""
    with _closing(store_settings(data_dir).database_url) as database:
        yield database


@contextmanager
def open_other_database(url: str) -> Iterator[Database]:
    """Yields the database at a URL that was typed; raises CliError where it is none that the store knows."""
    try:
        checked = StoreSettings(database_url=url).database_url
    except ValidationError as error:
        raise CliError(
            ExitCode.USAGE,
            f"{url!r} is no database that can be used: {error.errors()[0]['msg']}.",
            hint="Write postgresql+psycopg://USER:PASSWORD@HOST/NAME or sqlite:///FILE.",
            code="bad_database_url",
            field="--to",
        ) from error
    with _closing(checked) as database:
        yield database


@contextmanager
def _closing(url: str) -> Iterator[Database]:
    database = Database(url)
    try:
        yield database
    finally:
        database.dispose()
