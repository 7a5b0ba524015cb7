"""How the document describes a body that is read as it arrives: one file, and a name if the client likes."""

from __future__ import annotations

from typing import Any


def upload_body(description: str) -> dict[str, Any]:
    """Returns a route's `openapi_extra`. description: of the file."""
    schema = {
        "type": "object",
        "required": ["file"],
        "properties": {
            "file": {"type": "string", "format": "binary", "description": description},
            "name": {"type": "string", "description": "Shown in lists; the file's name by default."},
        },
    }
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}
