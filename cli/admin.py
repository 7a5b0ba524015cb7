"""What `bitmill keys` and `bitmill admin` do: short work on the database itself, without a running service."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from kombu.exceptions import KombuError

from cli.errors import CliError, ExitCode
from cli.output import bytes_text, out, print_json
from cli.store_access import open_database, store_settings
from store.keys import API_SCOPES, Quotas
from store.queue import make_celery

if TYPE_CHECKING:
    from pathlib import Path

    from store.keys import ApiKey
    from store.settings import StoreSettings

DEFAULT_SCOPES = ("jobs:read", "jobs:write", "artifacts:read")
BROKER_TIMEOUT_SECONDS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyWish:
    """A key to be made, as it was typed."""

    name: str
    scopes: list[str] | None
    expires_days: int | None
    quotas: Quotas


def create_key(wish: KeyWish, *, data_dir: Path | None, as_json: bool) -> None:
    """Creates a key and prints its bearer once."""
    wanted = frozenset(wish.scopes or DEFAULT_SCOPES)
    for scope in sorted(wanted - API_SCOPES):
        raise CliError(
            ExitCode.USAGE,
            f"There is no scope {scope!r}.",
            hint=f"Use one of {', '.join(sorted(API_SCOPES))}.",
            code="unknown_scope",
            field="--scope",
        )
    expires_at = datetime.now(UTC) + timedelta(days=wish.expires_days) if wish.expires_days else None
    with open_database(data_dir) as database:
        database.upgrade()
        with database.transaction() as repository:
            key, bearer = repository.add_api_key(wish.name, wanted, expires_at, wish.quotas)
    if as_json:
        print_json({**_key_json(key), "bearer": bearer})
        return
    console = out()
    console.print(bearer, style="bold")
    console.print(
        f"Key {key.id} ({key.name}) with {', '.join(sorted(wanted))}. It is shown this once; keep it like a password.",
        style="dim",
    )


def list_keys(*, data_dir: Path | None, as_json: bool) -> None:
    """Prints every key, without its secret."""
    with open_database(data_dir) as database, database.transaction() as repository:
        keys = repository.list_api_keys()
    if as_json:
        print_json({"keys": [_key_json(key) for key in keys]})
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("ID", "NAME", "SCOPES", "QUOTAS", "CREATED", "STATE"):
        table.add_column(column, no_wrap=column == "ID")
    for key in keys:
        scopes, quotas = " ".join(sorted(key.scopes)), _quotas_text(key.quotas)
        table.add_row(key.id, key.name, scopes, quotas, f"{key.created_at:%Y-%m-%d}", _key_state(key))
    out().print(table if keys else "There is no key. Create one: bitmill keys create NAME")


def revoke_key(*, key_id: str, data_dir: Path | None, as_json: bool) -> None:
    """Revokes a key; raises NotFoundError if there is none."""
    with open_database(data_dir) as database, database.transaction() as repository:
        repository.revoke_api_key(key_id)
    if as_json:
        print_json({"id": key_id, "revoked": True})
    else:
        out().print(f"Key {key_id} is revoked.")


def migrate(*, data_dir: Path | None, as_json: bool) -> None:
    """Brings the database to the newest schema."""
    with open_database(data_dir) as database:
        database.upgrade()
    if as_json:
        print_json({"migrated": True})
    else:
        out().print("The database has the newest schema.")


def check(*, data_dir: Path | None, as_json: bool) -> None:
    """Checks that the database and the broker answer; raises an error with exit code 3 where one does not."""
    settings = store_settings(data_dir)
    with open_database(data_dir) as database:
        database.ping()
    _ping_broker(settings)
    if as_json:
        print_json({"database": "ok", "broker": "ok"})
    else:
        out().print("The database and the broker answer.")


def _ping_broker(settings: StoreSettings) -> None:
    celery = make_celery(settings)
    connection = celery.connection_for_write(connect_timeout=BROKER_TIMEOUT_SECONDS)
    try:
        connection.ensure_connection(max_retries=1, timeout=BROKER_TIMEOUT_SECONDS)
    except (KombuError, OSError) as error:
        raise CliError(
            ExitCode.UNAVAILABLE,
            f"The broker did not answer: {error}.",
            hint="Check BITMILL_BROKER_URL and that the broker runs.",
            code="broker_unavailable",
        ) from error
    finally:
        connection.release()


def _key_json(key: ApiKey) -> dict[str, Any]:
    values = asdict(key)
    del values["secret_sha256"]
    values["scopes"] = sorted(key.scopes)
    for name in ("created_at", "expires_at", "revoked_at"):
        values[name] = values[name].isoformat() if values[name] else None
    return {**values, "state": _key_state(key)}


def _quotas_text(quotas: Quotas) -> str:
    set_ones = {name: value for name, value in asdict(quotas).items() if value is not None}
    words = [
        f"{name}={bytes_text(value) if name.endswith('bytes') else value}".replace(" ", "")
        for name, value in set_ones.items()
    ]
    return " ".join(words) or "none"


def _key_state(key: ApiKey) -> str:
    if key.revoked_at:
        return "revoked"
    if key.expires_at and key.expires_at <= datetime.now(UTC):
        return "expired"
    return "active"
