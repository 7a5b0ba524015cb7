"""Checks the page's sources: types against the API's own document as it is now, then the tests of the logic."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import dashboard

sys.path.insert(0, str(dashboard.WEB.parent))


def write_types() -> None:
    """Generates the types from the application's document: a page that no longer fits it does not compile."""
    from api.app import create_app  # noqa: PLC0415 - after its folder is on the path
    from api.settings import ApiSettings  # noqa: PLC0415 - same

    document = dashboard.WEB / "node_modules" / ".openapi.json"
    document.write_text(json.dumps(create_app(ApiSettings(data_dir=Path("var/openapi"))).openapi()))
    types = dashboard.GENERATED.relative_to(dashboard.WEB)
    dashboard.run_npm(
        "run", "types", "--silent", "--", str(document.relative_to(dashboard.WEB)), "--output", str(types)
    )


if __name__ == "__main__":
    try:
        dashboard.install_packages()
        write_types()
        if sys.argv[1:] != ["types"]:
            dashboard.run_npm("run", "check", "--silent")
            dashboard.run_npm("test", "--silent")
    except dashboard.BuildError as error:
        sys.exit(f"The dashboard does not pass its checks: {error}.")
