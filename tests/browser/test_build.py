"""What the build wrote: small, of one origin, and as strict as the security policy."""

from __future__ import annotations

import gzip
import json
import re

from tests.browser.conftest import ROOT

BUILT = ROOT / "api" / "static"
KILOBYTE = 1000
MOST_KILOBYTES = 80
# Names of formats and of the libraries' help pages, which no script asks for.
NAMES = ("http://www.w3.org/", "https://preactjs.com", "https://github.com/")


def test_script_and_style_are_small():
    """Together, as they are sent compressed."""
    sizes = {path.name: len(gzip.compress(path.read_bytes(), 9)) for path in (BUILT / "assets").iterdir()}
    assert sum(sizes.values()) <= MOST_KILOBYTES * KILOBYTE, sizes


def test_the_page_needs_nothing_that_the_policy_forbids():
    """No inline script, style or handler; every file that it names is relative and there."""
    page = (BUILT / "index.html").read_text()
    assert re.findall(r"<script(?![^>]*src=)", page) == []
    assert re.findall(r"<style|\s(?:on\w+|style)=", page) == []
    named = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert len(named) >= 3
    for name in named:
        assert name.startswith("./")
        assert (BUILT / name).is_file()


def test_nothing_names_another_origin():
    """In scripts and styles."""
    for path in (BUILT / "assets").iterdir():
        text = path.read_text()
        for name in NAMES:
            text = text.replace(name, "")
        assert re.findall(r"https?://[a-z0-9.]{4,}", text) == [], path.name


def test_the_lock_file_names_no_registry():
    """Packages are told by version and hash; where they come from is a matter of the machine."""
    packages = json.loads((ROOT / "web" / "package-lock.json").read_text())["packages"]
    assert [name for name, package in packages.items() if "resolved" in package] == []
    assert all("integrity" in package for name, package in packages.items() if name)
