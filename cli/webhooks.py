"""What `bitmill webhooks` does: receivers of events and what became of each message, over HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cli.client import ServiceClient
from cli.output import age_text, err, out, print_json
from cli.settings import client_settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

STATE_STYLES = {"pending": "yellow", "delivered": "green", "failed": "red"}

PATH = "/v1/webhooks"


def create_webhook(
    address: str, *, name: str, events: Sequence[str], url: str | None, api_key: str | None, as_json: bool
) -> None:
    """Makes a webhook and prints its secret once."""
    body = {"url": address, "name": name, **({"events": list(events)} if events else {})}
    with ServiceClient(client_settings(url, api_key)) as client:
        webhook = client.post(PATH, body)
    if as_json:
        print_json(webhook)
        return
    out().print(webhook["secret"], style="bold")
    err().print(f"{webhook['id']} tells {webhook['url']} of {', '.join(webhook['events'])}.", style="dim")
    err().print("The secret is shown this once; the receiver verifies messages with it.", style="dim")


def list_webhooks(*, url: str | None, api_key: str | None, as_json: bool) -> None:
    """Prints every webhook."""
    with ServiceClient(client_settings(url, api_key)) as client:
        found = client.get(PATH)["data"]
    if as_json:
        print_json({"webhooks": found})
    else:
        out().print(webhook_table(found) if found else "There is no webhook.")


def try_webhook(webhook_id: str, *, url: str | None, api_key: str | None, as_json: bool) -> None:
    """Queues a test message."""
    _post(f"{PATH}/{webhook_id}:test", url=url, api_key=api_key, as_json=as_json)


def replay(webhook_id: str, delivery_id: str, *, url: str | None, api_key: str | None, as_json: bool) -> None:
    """Queues a message again."""
    _post(f"{PATH}/{webhook_id}/deliveries/{delivery_id}:replay", url=url, api_key=api_key, as_json=as_json)


def list_deliveries(webhook_id: str, *, limit: int, url: str | None, api_key: str | None, as_json: bool) -> None:
    """Prints the newest messages of a webhook."""
    with ServiceClient(client_settings(url, api_key)) as client:
        found = client.get(f"{PATH}/{webhook_id}/deliveries", page_size=limit)["data"]
    if as_json:
        print_json({"deliveries": found})
    else:
        out().print(delivery_table(found) if found else "No message yet.")


def webhook_table(webhooks: Sequence[dict[str, Any]]) -> Table:
    """Returns one row per webhook."""
    table = _table("ID", "STATE", "URL", "EVENTS", "NAME")
    for webhook in webhooks:
        state = "enabled" if webhook["enabled"] else f"disabled {webhook['disabled_reason']}".strip()
        table.add_row(webhook["id"], state, webhook["url"], " ".join(webhook["events"]), webhook["name"])
    return table


def delivery_table(deliveries: Sequence[dict[str, Any]]) -> Table:
    """Returns one row per message."""
    from rich.text import Text

    table = _table("ID", "STATE", "TYPE", "JOB", "TRIES", "ANSWER", "CREATED")
    for delivery in deliveries:
        table.add_row(
            delivery["id"],
            Text(delivery["state"], STATE_STYLES.get(delivery["state"], "")),
            delivery["type"],
            delivery["job_id"] or "-",
            str(delivery["attempts"]),
            str(delivery["status_code"] or delivery["error"] or "-"),
            age_text(delivery["created_at"]),
        )
    return table


def _table(*columns: str) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1))
    for column in columns:
        table.add_column(column, no_wrap=column in {"ID", "STATE"}, overflow="fold")
    return table


def _post(path: str, *, url: str | None, api_key: str | None, as_json: bool) -> None:
    with ServiceClient(client_settings(url, api_key)) as client:
        delivery = client.post(path)
    if as_json:
        print_json(delivery)
    else:
        out().print(f"{delivery['id']} is {delivery['state']}.")
