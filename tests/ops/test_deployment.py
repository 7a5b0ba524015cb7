"""Compose, Dockerfile, Makefile and CI say what the launcher and the tests run: there is no engine here to run them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from api.settings import ApiSettings
from cli.service.commands import WORKER_COMMAND, api_command
from worker.settings import WorkerSettings

ROOT = Path(__file__).parents[2]
OURS = ("migrate", "api", "worker")


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    return loaded


def stages() -> dict[str, list[str]]:
    """Returns the Dockerfile's instructions by stage, continued lines joined."""
    found: dict[str, list[str]] = {}
    name = ""
    for line in (ROOT / "Dockerfile").read_text().replace("\\\n", " ").splitlines():
        if match := re.match(r"FROM \S+ AS (\S+)", line):
            name = match.group(1)
            found[name] = [line]
        elif name and line and not line.startswith("#"):
            found[name].append(line)
    return found


def instruction(stage: str, word: str) -> str:
    """Returns the rest of the last instruction of this kind in a stage."""
    return [line.removeprefix(word).strip() for line in stages()[stage] if line.startswith(word)][-1]


def check(schema: str, file: Path) -> subprocess.CompletedProcess[str]:
    """Holds a file against a schema that check-jsonschema carries."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, str(file)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("file", "schema"),
    [("docker-compose.yml", "vendor.compose-spec"), ("examples/github-action.yml", "vendor.github-workflows")],
)
def test_a_file_is_what_its_reader_expects(file: str, schema: str):
    """By the schema that the reader's own project publishes."""
    answer = check(schema, ROOT / file)
    assert answer.returncode == 0, answer.stdout


def test_a_wrong_word_in_compose_is_found(tmp_path: Path):
    """The schema knows every key: one that Compose would refuse does not pass."""
    wrong = tmp_path / "docker-compose.yml"
    wrong.write_text((ROOT / "docker-compose.yml").read_text().replace("stop_grace_period", "stop_grace_seconds"))
    answer = check("vendor.compose-spec", wrong)
    assert answer.returncode == 1
    assert "stop_grace_seconds" in answer.stdout


def test_compose_names_only_what_it_declares(services: dict[str, Any]):
    """Services that others wait for, and the volumes that are mounted by name."""
    volumes = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["volumes"]
    mounted = {mount.split(":")[0] for service in services.values() for mount in service.get("volumes", ())}
    assert {name for name in mounted if not name.startswith(("$", ".", "/"))} == set(volumes)
    assert {other for service in services.values() for other in service.get("depends_on", ())} <= set(services)


def test_compose_runs_the_commands_of_the_launcher(services: dict[str, Any]):
    """API and worker are started by the very words of cli.service.commands."""
    assert tuple(services["api"]["command"]) == api_command("0.0.0.0", 8080)  # noqa: S104 - inside its container
    assert tuple(services["worker"]["command"]) == WORKER_COMMAND
    assert services["migrate"]["command"] == ["bitmill", "admin", "migrate"]


def test_images_run_the_same_commands(services: dict[str, Any]):
    """An image that is started without compose does what compose does."""
    for name in ("api", "worker"):
        assert yaml.safe_load(instruction(name, "CMD")) == services[name]["command"]


def test_every_part_waits_for_what_it_needs(services: dict[str, Any]):
    """The schema is there before API and worker start, and every server is healthy before it is used."""
    for name in ("api", "worker"):
        needs = services[name]["depends_on"]
        assert needs["migrate"]["condition"] == "service_completed_successfully"
        assert needs["bucket"]["condition"] == "service_completed_successfully"
        assert needs["postgres"]["condition"] == needs["redis"]["condition"] == "service_healthy"
    for name in ("postgres", "redis", "minio"):
        assert "test" in services[name]["healthcheck"]


def test_only_the_api_is_published_and_only_on_loopback(services: dict[str, Any]):
    """Databases and storage have no port on the host."""
    published = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert published == {"api": ["127.0.0.1:8080:8080"]}


def test_compose_sets_only_variables_that_are_read(services: dict[str, Any]):
    """Each BITMILL_ variable is a field of the settings."""
    fields = {f"BITMILL_{name.upper()}" for name in {**ApiSettings.model_fields, **WorkerSettings.model_fields}}
    for name in OURS:
        used = {variable for variable in services[name]["environment"] if variable.startswith("BITMILL_")}
        assert used <= fields


def test_a_stopping_worker_has_the_time_to_finish_its_block(services: dict[str, Any]):
    """Compose waits for longer than the worker's own patience."""
    patience = WorkerSettings.model_fields["drain_seconds"].default
    assert int(services["worker"]["stop_grace_period"].removesuffix("s")) > patience


def test_images_are_pinned_and_ours_are_unprivileged(services: dict[str, Any]):
    """No `latest`, no root, no capability, a health check in each final image."""
    assert all(":" in service["image"] for name, service in services.items() if name not in OURS)
    assert "latest" not in (ROOT / "docker-compose.yml").read_text()
    for name in OURS:
        assert services[name]["cap_drop"] == ["ALL"]
    for name in ("api", "worker"):
        assert instruction(name, "USER") == "bitmill"
        assert instruction(name, "HEALTHCHECK")


def test_the_api_image_installs_no_engine():
    """What the API's stages install is the `api` extra and nothing more."""
    lines = stages()
    chain = [*lines["packages"], *lines["api-packages"], *lines["api-code"], *lines["api"]]
    assert [line for line in chain if "pip install" in line] == [
        "RUN pip install --constraint constraints.txt '.[api,tracing]'",
        "RUN pip install --no-deps --force-reinstall .",
    ]
    assert "--from=api-code" in " ".join(lines["api"])


def test_the_wheel_carries_migrations_and_page(tmp_path: Path):
    """What an image installs has the schema's steps and the page in it, not only Python modules."""
    source = tmp_path / "source"
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name)
    write_built_page(source)
    build = f"import sys; sys.path.insert(0, 'web'); import backend; backend.build_wheel({str(tmp_path)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=source, capture_output=True, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    page = {"api/static/index.html", "api/static/assets/index-1a2b3c4d.js"}
    assert {"migrations/env.py", "cli/main.py", *page} <= names
    assert any(re.fullmatch(r"migrations/versions/\w+\.py", name) for name in names)
    assert not any(name.startswith(("tests/", "web/")) for name in names)


def write_built_page(source: Path) -> None:
    """Puts a page there that counts as built from the sources, so that no Node is needed."""
    (source / "api" / "static" / "assets").mkdir(parents=True)
    for name in ("index.html", "assets/index-1a2b3c4d.js"):
        (source / "api" / "static" / name).write_text("built")
    stamp = "import dashboard; dashboard.STAMP.write_text(dashboard.fingerprint())"
    subprocess.run([sys.executable, "-c", stamp], cwd=source / "web", check=True)


def test_the_images_carry_a_page_that_is_built_once():
    """The stage that has Node is not part of an image; the code of both takes the page from it, and builds none."""
    assert instruction("dashboard", "RUN") == "python web/dashboard.py"
    for stage in ("api-code", "worker-code"):
        lines = stages()[stage]
        assert lines.index("COPY --from=dashboard /src/api/static api/static") < len(lines) - 1
        assert "pip install" in lines[-1]


def test_ci_runs_the_tests_the_loaders_and_the_checks():
    """Any failure ends the script, and nothing swallows a status."""
    script = (ROOT / ".ci" / "run").read_text()
    assert "set -euo pipefail" in script
    steps = ["install", "test", "test-web", "soak", "test-loaders", "test-pt2e", "check"]
    assert re.findall(r"^make (\S+)$", script, re.MULTILINE) == steps
    assert "||" not in script


def test_make_stops_at_a_python_that_is_too_old(tmp_path: Path):
    """The set-up says which Python is needed and how to name one, instead of failing inside pip."""
    old = tmp_path / "python3"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    command = ["make", "--no-print-directory", "install", f"PYTHON={old}", f"VENV={tmp_path / 'venv'}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "Python 3.11 or newer" in done.stderr
    assert not (tmp_path / "venv").exists()
