"""The pages are true where a machine can tell: commands, options, requests, links, variables, targets, rooms."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import typer

from api.schemas import requests
from cli.main import build_app
from tests.docs.conftest import ROOT
from tests.docs.pages import PAGES, anchors, blocks, commands, links

REQUESTS = {"JobRequest", "BatchRequest"}
USAGE_ERROR = typer.BadParameter.__base__  # Typer carries the parser's exceptions and shows this one only


def name_of(page: Path) -> str:
    """Returns a page's path in the repository."""
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_command_exists_with_its_options(page: Path):
    """The program's own parser takes the words of each command that is shown."""
    for words in commands(page):
        parse(words, name_of(page))


def parse(words: list[str], where: str) -> None:
    """Fails where there is no such command or it does not take these words."""
    command, rest = typer.main.get_command(build_app()), list(words)
    while hasattr(command, "commands"):
        assert "".join(rest[:1]) in command.commands, f"{where}: bitmill {' '.join(words)}"
        command = command.commands[rest.pop(0)]
    context = command.context_class(command, info_name=words[0])
    try:
        command.make_parser(context).parse_args(rest)
    except USAGE_ERROR as error:
        pytest.fail(f"{where}: bitmill {' '.join(words)}: {error.message}")


def test_a_wrong_command_is_found():
    """The check above can fail: on an unknown command, an unknown option and a missing value."""
    for words in (["jobs", "paint"], ["run", "--colour", "red"], ["run", "--src"]):
        with pytest.raises((AssertionError, pytest.fail.Exception)):
            parse(words, "here")


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_request_is_a_valid_one(page: Path):
    """JSON under the name of a request is taken by that model of the API."""
    for block in blocks(page):
        if block.language == "json" and block.mark:
            assert block.mark in REQUESTS, f"{name_of(page)}: {block.mark}"
            getattr(requests, block.mark).model_validate(json.loads(block.text))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_somewhere(page: Path):
    """Relative links name files that exist, and headings in them."""
    for target, anchor in links(page):
        file = (page.parent / target).resolve() if target else page
        assert file.exists(), f"{name_of(page)}: {target}"
        assert not anchor or anchor in anchors(file), f"{name_of(page)}: {target}#{anchor}"


def test_every_page_is_reached():
    """By links from README.md on; a link to a folder reaches the pages in it."""
    reached: set[Path] = set()
    waiting = [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        reached.add(page)
        for target, _ in links(page):
            place = (page.parent / target).resolve() if target else page
            found = place.glob("*.md") if place.is_dir() else [place] if place.suffix == ".md" else []
            waiting += [other for other in found if other not in reached]
    assert set(PAGES) - reached == set()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_make_target_exists(page: Path):
    """`make X` as shown is a target of the Makefile."""
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for target in re.findall(r"(?:`|^)make ([a-z0-9-]+)", page.read_text(), re.MULTILINE):
        assert target in targets, f"{name_of(page)}: make {target}"


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
