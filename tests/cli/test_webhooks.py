"""`bitmill webhooks` against a running service."""

from __future__ import annotations

import json

from cli.errors import ExitCode
from tests.cli.conftest import Bitmill


def test_a_webhook_is_made_tried_and_deleted(at_service: Bitmill):
    """The address leads nowhere, which the deliveries tell; an address that is refused names the field."""
    made = json.loads(at_service("webhooks", "create", "https://hooks.invalid/x", "--name", "ci", "--json").stdout)
    assert made["secret"].startswith("whsec_")
    try:
        assert made["id"] in at_service("webhooks", "list").stdout
        sent = json.loads(at_service("webhooks", "test", made["id"], "--json").stdout)["id"]
        assert sent in at_service("webhooks", "deliveries", made["id"]).stdout
        assert "pending" in at_service("webhooks", "replay", made["id"], sent).stdout
    finally:
        assert at_service("webhooks", "delete", made["id"]).returncode == ExitCode.OK
    refused = at_service("webhooks", "create", "http://127.0.0.1/x", "--json")
    assert refused.returncode == ExitCode.USAGE
    assert json.loads(refused.stderr)["error"]["field"] == "url"
