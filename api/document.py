"""Writes the OpenAPI document that the repository keeps: `python -m api.document docs/openapi.json`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from api.app import create_app
from api.settings import ApiSettings


def document_text() -> str:
    """Returns the document as it is kept, made by an application of its own that serves nobody."""
    with TemporaryDirectory() as folder:
        settings = ApiSettings(data_dir=Path(folder), cache_dir=Path(folder))
        app = create_app(settings)
        text = json.dumps(app.openapi(), indent=1, ensure_ascii=False) + "\n"
        app.state.services.close()
    return text


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(document_text())
