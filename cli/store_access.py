"""Opens the store for the commands that work on the database itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import ValidationError

from cli.errors import CliError, ExitCode
from store.settings import StoreSettings, settings_from_env

if TYPE_CHECKING:
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
