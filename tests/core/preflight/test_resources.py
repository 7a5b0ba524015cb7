"""A machine that lacks disk, memory or file size is refused before the work starts, with both numbers."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from core.configs import CalibrationConfig, GPTQConfig, RTNConfig
from core.errors import InsufficientResourcesError
from core.preflight.resources import (
    Estimate,
    available_memory,
    check_disk,
    check_disks,
    check_file_size,
    check_memory,
    estimate,
)
from core.preflight.source import ModelFacts, inspect_source
from tests.core.preflight.folders import make_llama

EXABYTE = 10**18


@pytest.fixture
def facts(tmp_path: Path) -> ModelFacts:
    """The facts of a tiny Llama."""
    return inspect_source(make_llama(tmp_path))


def in_a_limited_process(limit: str, code: str) -> dict[str, object]:
    """Runs code in a process whose resource limit is set by the kernel and returns the facts of its refusal."""
    program = (
        f"import json, resource\nfrom pathlib import Path\n"
        f"from core.errors import InsufficientResourcesError\nfrom core.preflight.resources import *\n"
        f"resource.setrlimit(resource.{limit})\n"
        f"try:\n    {code}\nexcept InsufficientResourcesError as error:\n"
        f"    print(json.dumps([error.resource, error.needed_bytes, error.available_bytes]))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    resource, needed, available = json.loads(done.stdout)
    return {"resource": resource, "needed": needed, "available": available}


def test_a_disk_too_small_is_refused_even_for_a_folder_yet_to_be_made(tmp_path: Path):
    """The nearest existing parent's file system is asked."""
    check_disk(tmp_path / "not" / "there" / "yet", 1)
    with pytest.raises(InsufficientResourcesError) as caught:
        check_disk(tmp_path / "not" / "there" / "yet", EXABYTE)
    assert caught.value.resource == "disk"
    assert caught.value.needed_bytes == EXABYTE
    assert 0 < caught.value.available_bytes < EXABYTE
    assert caught.value.hint


def test_what_goes_to_one_disk_is_added_up(tmp_path: Path):
    """Two folders of one file system share its room; another file system is asked for its own part alone."""
    half = shutil.disk_usage(tmp_path).free // 2 + 10**9
    check_disks({tmp_path / "cache": half})
    check_disks({tmp_path / "cache": half, Path("/proc"): 0})
    with pytest.raises(InsufficientResourcesError) as caught:
        check_disks({tmp_path / "cache": half, tmp_path / "work": half})
    assert caught.value.needed_bytes == 2 * half


def test_a_limit_on_the_size_of_a_file_is_refused():
    """RLIMIT_FSIZE would kill the run in the middle of its first shard."""
    found = in_a_limited_process("RLIMIT_FSIZE, (1000000, 1000000)", "check_file_size(2000000)")
    assert found == {"resource": "file size (ulimit -f)", "needed": 2_000_000, "available": 1_000_000}
    check_file_size(1)


def test_a_limit_on_memory_is_refused():
    """RLIMIT_AS counts as memory that is not there."""
    found = in_a_limited_process("RLIMIT_AS, (500000000, 500000000)", "check_memory(600000000)")
    assert found == {"resource": "memory", "needed": 600_000_000, "available": 500_000_000}


def test_memory_is_what_the_machine_has():
    """Available memory lies between a sign of life and the machine's size; an exabyte is refused."""
    assert 10**6 < available_memory() < EXABYTE
    check_memory(1)
    with pytest.raises(InsufficientResourcesError):
        check_memory(EXABYTE)


def test_estimates_grow_with_what_costs_more(facts: ModelFacts):
    """More bits, smaller groups and more tokens never need less; tokens cost no artifact bytes."""

    def of(bits: int = 4, group_size: int = 32, samples: int = 32) -> Estimate:
        config = GPTQConfig(bits=bits, group_size=group_size)
        return estimate(facts, config, CalibrationConfig(samples=samples, seq_len=64))

    assert of(bits=8).artifact_bytes > of(bits=4).artifact_bytes > of(bits=2).artifact_bytes
    assert of(group_size=16).artifact_bytes > of(group_size=32).artifact_bytes > of(group_size=-1).artifact_bytes
    assert of(samples=64).ram_bytes > of(samples=32).ram_bytes
    assert of(samples=64).disk_bytes > of(samples=32).disk_bytes
    assert of(samples=64).artifact_bytes == of(samples=32).artifact_bytes
    assert of().disk_bytes > of().artifact_bytes
    assert estimate(facts, RTNConfig(group_size=32), None).ram_bytes < of().ram_bytes


def test_the_artifact_estimate_counts_the_packed_bytes(facts: ModelFacts):
    """Against a sum by hand for one group size: codes, scales, zeros, group indexes, and all that stays."""
    linears = facts.linears.values()
    packed = sum(o * i // 2 + o * (i // 32) * 2 + o * (i // 32) // 2 + 4 * i for o, i in linears)
    kept = facts.total_bytes - sum(2 * o * i for o, i in linears)
    by_hand = packed + kept
    estimated = estimate(facts, GPTQConfig(bits=4, group_size=32), None).artifact_bytes
    assert by_hand < estimated < by_hand + 40 * 10**6
