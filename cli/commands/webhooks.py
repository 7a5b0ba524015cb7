"""`bitmill webhooks`: who is told of events, over HTTP."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.options import ApiKeyOption, JsonOption, UrlOption

IdArgument = Annotated[str, typer.Argument(metavar="ID", help="whk_... as `webhooks list` shows it.")]


def build_app() -> typer.Typer:
    """Returns the group of commands."""
    app = typer.Typer(help="Webhooks of a running service, over HTTP.", no_args_is_help=True)
    app.command("create")(create)
    app.command("list")(list_webhooks)
    app.command("test")(try_out)
    app.command("deliveries")(deliveries)
    app.command("replay")(replay)
    app.command("delete")(delete)
    return app


def create(
    address: Annotated[str, typer.Argument(metavar="ADDRESS", help="https URL that messages are posted to.")],
    name: Annotated[str, typer.Option("--name", help="Shown in lists.")] = "",
    event: Annotated[
        list[str] | None,
        typer.Option("--event", help="Give it again for more.", show_default="job.succeeded job.failed job.cancelled"),
    ] = None,
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
    json_output: JsonOption = False,
) -> None:
    """Tell an address of events. The secret that messages are signed with is shown once."""
    from cli.webhooks import create_webhook

    create_webhook(address, name=name, events=event or (), url=url, api_key=api_key, as_json=json_output)


def list_webhooks(url: UrlOption = None, api_key: ApiKeyOption = None, json_output: JsonOption = False) -> None:
    """List webhooks, without their secrets."""
    from cli.webhooks import list_webhooks as show

    show(url=url, api_key=api_key, as_json=json_output)


def try_out(
    webhook_id: IdArgument, url: UrlOption = None, api_key: ApiKeyOption = None, json_output: JsonOption = False
) -> None:
    """Send a test message."""
    from cli.webhooks import try_webhook

    try_webhook(webhook_id, url=url, api_key=api_key, as_json=json_output)


def deliveries(
    webhook_id: IdArgument,
    limit: Annotated[int, typer.Option("--limit", min=1, max=200, help="Newest messages shown.")] = 20,
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
    json_output: JsonOption = False,
) -> None:
    """Show what became of each message."""
    from cli.webhooks import list_deliveries

    list_deliveries(webhook_id, limit=limit, url=url, api_key=api_key, as_json=json_output)


def replay(
    webhook_id: IdArgument,
    delivery_id: Annotated[str, typer.Argument(metavar="MESSAGE", help="msg_... as `webhooks deliveries` shows it.")],
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
    json_output: JsonOption = False,
) -> None:
    """Send a message again."""
    from cli.webhooks import replay as send_again

    send_again(webhook_id, delivery_id, url=url, api_key=api_key, as_json=json_output)


def delete(
    webhook_id: IdArgument, url: UrlOption = None, api_key: ApiKeyOption = None, json_output: JsonOption = False
) -> None:
    """End a webhook; what was not sent is not sent any more."""
    from cli.keeping import remove
    from cli.webhooks import PATH

    remove(f"{PATH}/{webhook_id}", url=url, api_key=api_key, as_json=json_output)
