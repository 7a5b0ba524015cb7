"""The program as a whole: help is fast and complete, errors have codes, the documentation shows both."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from cli.errors import CORE_EXIT_CODES, MEANINGS, STORE_EXIT_CODES, ExitCode
from cli.main import build_app
from cli.options import QuantizationOptions
from core.configs import CalibrationConfig, Preset, all_options
from core.configs.options import declared_options
from core.errors import CoreError
from store.errors import IdempotencyConflictError, LeaseLostError, StoreError
from tests.ops.service import run_bitmill

DOCS = Path(__file__).parents[2] / "docs"


def commands() -> list[str]:
    """Returns every command as it is typed, such as `bitmill jobs submit`."""
    group = typer.main.get_command(build_app())
    names = []
    for name, command in group.commands.items():  # type: ignore[attr-defined]  # Typer's group, typed as a command
        below = getattr(command, "commands", None)
        names.extend([f"bitmill {name} {sub}" for sub in below] if below else [f"bitmill {name}"])
    return names


def test_help_loads_no_heavy_library():
    """`--help` needs neither torch nor the database nor an HTTP client."""
    code = (
        "import sys, contextlib; from cli.main import build_app\n"
        "with contextlib.suppress(SystemExit): build_app()(['--help'])\n"
        "print(sorted({'torch', 'transformers', 'sqlalchemy', 'httpx', 'celery'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


def test_every_command_has_help_and_json():
    """Each command describes itself and can speak JSON."""
    for command in commands():
        done = CliRunner().invoke(build_app(), [*command.split()[1:], "--help"])
        assert done.exit_code == 0
        assert "--json" in done.output, command


def test_the_documentation_shows_every_command_and_every_exit_code():
    """docs/cli.md has a row for each; none that does not exist."""
    page = (DOCS / "cli.md").read_text()
    rows = {line.split("|")[1].strip().strip("`") for line in page.splitlines() if line.startswith("| `bitmill ")}
    assert rows == set(commands())
    for code, meaning in MEANINGS.items():
        assert f"| {int(code)} | {meaning} |" in page


def test_every_error_that_can_reach_a_user_has_an_exit_code():
    """No deliberate error of core or store falls through to a default by accident."""
    not_for_users = {LeaseLostError, IdempotencyConflictError}
    assert set(CORE_EXIT_CODES) == set(CoreError.__subclasses__())
    assert set(StoreError.__subclasses__()) - set(STORE_EXIT_CODES) - not_for_users == set()


@pytest.mark.parametrize(
    "arguments",
    [("jobs", "submit"), ("run", "--src", "x"), ("nonsense",), ("run", "--src", "x", "--dst", "y", "--bits", "four")],
)
def test_wrong_usage_exits_with_2(arguments: tuple[str, ...]):
    """Missing options, unknown commands and wrong types end before anything happens."""
    done = run_bitmill(*arguments)
    assert done.returncode == ExitCode.USAGE
    assert "Traceback" not in done.stderr


def test_keys_are_shown_once_and_can_be_revoked(tmp_path: Path):
    """The secret appears at creation and never again; a revoked key is listed as revoked."""
    where = ("--data-dir", str(tmp_path), "--json")
    limited = ("--scope", "jobs:read", "--max-jobs", "3", "--max-stored-bytes", "5000000")
    made = json.loads(run_bitmill("keys", "create", "laptop", *limited, *where).stdout)
    assert made["bearer"].startswith("bm_")
    assert (made["quotas"]["jobs_in_flight"], made["quotas"]["requests_per_minute"]) == (3, None)
    listed = run_bitmill("keys", "list", *where).stdout
    assert made["bearer"] not in listed
    assert [key["state"] for key in json.loads(listed)["keys"]] == ["active"]
    assert run_bitmill("keys", "revoke", made["id"], *where).returncode == ExitCode.OK
    assert [key["state"] for key in json.loads(run_bitmill("keys", "list", *where).stdout)["keys"]] == ["revoked"]
    assert run_bitmill("keys", "revoke", "key_unknown", *where).returncode == ExitCode.REFUSED
    assert run_bitmill("keys", "create", "x", "--scope", "everything", *where).returncode == ExitCode.USAGE


def test_a_wrong_environment_variable_is_named(tmp_path: Path):
    """The variable and what is allowed, instead of a validation dump."""
    done = run_bitmill("keys", "list", "--data-dir", str(tmp_path), BITMILL_DATABASE_URL="mysql://host/db")
    assert done.returncode == ExitCode.USAGE
    assert "database_url must start with" in done.stderr
    assert "Traceback" not in done.stderr


def test_check_tells_a_dead_broker(tmp_path: Path):
    """The worker's health check fails where the broker does not answer."""
    where = ("--data-dir", str(tmp_path))
    assert run_bitmill("admin", "migrate", *where).returncode == ExitCode.OK
    assert run_bitmill("admin", "check", *where).returncode == ExitCode.OK
    dead = run_bitmill("admin", "check", *where, BITMILL_BROKER_URL="redis://127.0.0.1:9/0")
    assert dead.returncode == ExitCode.UNAVAILABLE
    assert "broker" in dead.stderr


def test_every_option_of_every_method_can_be_typed():
    """`run` and `jobs submit` offer what the configs declare, and hand on only what was typed."""
    for command in (["run"], ["jobs", "submit"]):
        help_text = CliRunner().invoke(build_app(), [*command, "--help"], env={"COLUMNS": "200"}).output
        for name in (*all_options(), *declared_options(CalibrationConfig), "preset"):
            assert f"--{name.replace('_', '-')}" in help_text, (command, name)
    typed = QuantizationOptions(values={"bits": 3, "preset": Preset.FAST, "dynamic": '{"-:x": {}}'})
    assert typed.given() == {"method": "gptq", "bits": 3, "preset": "fast", "dynamic": {"-:x": {}}}
