"""How long things are kept, over HTTP: pins and times of jobs' files, texts and uploaded models, and ends of all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cli.client import ServiceClient
from cli.output import out, print_json
from cli.settings import client_settings

if TYPE_CHECKING:
    from rich.text import Text


def keep(
    path: str, *, pin: bool | None, until: str | None, url: str | None, api_key: str | None, as_json: bool
) -> None:
    """Sets how long what is at a path is kept; what is None stays as it is."""
    wishes = {"pinned": pin, "expires_at": until}
    with ServiceClient(client_settings(url, api_key)) as client:
        kept = client.patch(path, {name: value for name, value in wishes.items() if value is not None})
    if as_json:
        print_json(kept)
        return
    ends = "pinned" if kept["pinned"] else f"kept until {kept['expires_at'] or 'the service says otherwise'}"
    out().print(f"{kept['id']} is {ends}.")


def remove(path: str, *, url: str | None, api_key: str | None, as_json: bool) -> None:
    """Removes what is at a path for good."""
    removed = path.rsplit("/", 1)[-1]
    with ServiceClient(client_settings(url, api_key)) as client:
        client.delete(path)
    if as_json:
        print_json({"id": removed, "deleted": True})
    else:
        out().print(f"{removed} is deleted.")


def kept_text(kept: dict[str, Any]) -> Text:
    """Returns the cell of a list that says how long a row's thing stays."""
    from rich.text import Text

    if kept["pinned"]:
        return Text("pinned")
    if kept["expires_at"] is None:
        return Text("-")
    if kept["expiry_warned_at"] is not None:
        return Text(f"goes {kept['expires_at']}", style="yellow")
    return Text(f"until {kept['expires_at']}")
