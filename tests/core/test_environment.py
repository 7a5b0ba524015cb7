"""What the engine sets about its process."""

from __future__ import annotations

from pathlib import Path

import torch

from core.device import CPU
from core.environment import (
    numerics_profile,
    return_code_pages,
    return_free_pages,
    return_freed_memory,
    rss_bytes,
)


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


def test_holes_between_what_is_used_leave_memory() -> None:
    """Of a hundred freed megabytes, each beside one that is held, most go back to the system."""
    return_freed_memory()
    held = [torch.ones(2**18) for _ in range(200)]
    del held[::2]
    before = rss_bytes()
    return_free_pages()
    assert rss_bytes() < before - 80 * 10**6
    assert sum(float(tensor.sum()) for tensor in held) == 100 * 2**18


def test_a_few_holes_are_kept_for_what_comes_next() -> None:
    """Pages that the next batch needs again are not given back in between."""
    return_freed_memory()
    held = [torch.ones(2**18) for _ in range(40)]
    before = rss_bytes()
    del held[::2]
    return_free_pages()
    assert rss_bytes() > before - 2 * 10**6
    return_free_pages(64 << 20)
    assert rss_bytes() < before - 16 * 10**6  # large tensors come next, which do not fill them


def test_without_a_list_of_mappings_nothing_happens(tmp_path: Path) -> None:
    """As on other systems."""
    return_code_pages(tmp_path / "maps")


def test_another_number_of_devices_is_another_numerics_profile() -> None:
    """Parts of a sum are added in another order then; the name of one stays what it was."""
    one, two, three = (numerics_profile(torch.float32, *[CPU] * number) for number in (1, 2, 3))
    assert len({one, two, three}) == 3
    assert two == f"{one} + {one}"
