"""What the engine sets about its process."""

from __future__ import annotations

from pathlib import Path

import torch

from core.environment import return_code_pages


def _resident_code() -> int:
    """Returns the bytes of torch's code that are in memory."""
    total, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first = line.split(maxsplit=1)[0]
        if "-" in first:
            inside = " r-xp " in line and "libtorch_cpu" in line
        elif inside and first == "Rss:":
            total += int(line.split()[1]) * 1024
    return total


def test_code_that_is_not_run_leaves_memory() -> None:
    """Most of what importing touched goes, and everything works as before."""
    before = torch.linspace(0, 1, 1000).softmax(0)
    held = _resident_code()
    return_code_pages()
    assert _resident_code() < held
    assert torch.equal(torch.linspace(0, 1, 1000).softmax(0), before)


def test_without_a_list_of_mappings_nothing_happens(tmp_path: Path) -> None:
    """As on other systems."""
    return_code_pages(tmp_path / "maps")
