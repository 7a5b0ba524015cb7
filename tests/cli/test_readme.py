"""README.md is true: its curl walk-through is run as it stands, its commands and links exist."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import typer

from cli.main import build_app
from tests.cli.test_main import commands
from tests.ops.service import RunningService, environment

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
WALKTHROUGH = re.compile(r"<!-- walkthrough -->\n```sh\n(.*?)```", re.DOTALL)


def test_the_walkthrough_runs_as_it_is_printed(service: RunningService, models: Path, tmp_path: Path):
    """Every command succeeds against a running service, and the downloaded files match their checksums."""
    found = WALKTHROUGH.search((ROOT / "README.md").read_text())
    assert found is not None
    variables = environment(BITMILL_URL=service.url, BITMILL_MODEL=str(models / "tiny"), NO_PROXY="127.0.0.1")
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", found.group(1).replace("curl -sS", "curl -sSf")],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=variables,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"job_\w+ succeeded\n", done.stdout)
    assert "model.safetensors: OK" in done.stdout


def test_every_command_in_the_pages_exists():
    """A command with its options, as shown in a code block, is one that the program has."""
    known = set(commands())
    helps: dict[str, set[str]] = {}
    for page in PAGES:
        for command, options in shown_commands(page.read_text()):
            assert command in known, f"{page.name}: {command}"
            helps.setdefault(command, set()).update(options)
    for command, options in helps.items():
        assert options <= options_of(command), command


def shown_commands(text: str) -> list[tuple[str, set[str]]]:
    """Returns each `bitmill ...` line of the code blocks: the command and the options that it is shown with."""
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    lines = [line.partition("#")[0] for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    matches = [
        re.match(r"(?:\S*/)?bitmill ((?:jobs|workers|webhooks|keys|admin) [\w-]+|[\w-]+)(.*)", line) for line in lines
    ]
    return [(f"bitmill {match[1]}", set(re.findall(r"--[a-z-]+", match[2]))) for match in matches if match]


def options_of(command: str) -> set[str]:
    """Returns the options of a command."""
    group = typer.main.get_command(build_app())
    for name in command.split()[1:]:
        group = group.commands[name]  # type: ignore[attr-defined]  # Typer's group, typed as a command
    return {option for parameter in group.params for option in (*parameter.opts, *parameter.secondary_opts)}


def test_every_link_between_the_pages_leads_somewhere():
    """Relative links name files that exist."""
    for page in PAGES:
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_make_target_in_the_pages_exists():
    """`make X` as shown is a target of the Makefile."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        for target in re.findall(r"(?:`|^)make ([a-z-]+)", page.read_text(), re.MULTILINE):
            assert target in targets, f"{page.name}: make {target}"


def test_the_architecture_page_names_every_room():
    """Each package of the tree stands in docs/architecture.md, and each folder that it names exists."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    rooms = {path.parent.name for path in ROOT.glob("core/*/__init__.py")}
    rooms |= {
        path.parent.name
        for package in ("api", "store", "worker", "cli")
        for path in ROOT.glob(f"{package}/__init__.py")
    }
    assert {room for room in rooms if f"{room}/" not in text} == set()
    for folder in re.findall(r"^ {0,2}([a-z]+)/ ", text, re.MULTILINE):
        assert any(ROOT.glob(folder)) or any(ROOT.glob(f"*/{folder}")), folder
