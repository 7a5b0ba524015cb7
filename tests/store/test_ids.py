"""Identifiers of rows."""

from __future__ import annotations

import time
import uuid

import pytest

from store.ids import IdPrefix, new_id, uuid7


def test_uuid7_has_the_standard_form() -> None:
    """Version and variant are those of RFC 9562, and the first 48 bits are Unix milliseconds."""
    before = time.time_ns() // 1_000_000
    made = uuid7()
    after = time.time_ns() // 1_000_000
    assert (made.version, made.variant) == (7, uuid.RFC_4122)
    assert before <= made.int >> 80 <= after


def test_uuid7_does_not_repeat() -> None:
    """Many in one millisecond differ."""
    assert len({uuid7() for _ in range(10_000)}) == 10_000


def test_uuid7s_of_one_process_are_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those that are made within one millisecond, half a microsecond apart."""
    times = iter(range(1_800_000_000_000_000_000, 1_800_000_000_003_000_000, 500))
    monkeypatch.setattr(time, "time_ns", lambda: next(times))
    made = [uuid7() for _ in range(6000)]
    assert made == sorted(made)


@pytest.mark.parametrize("prefix", IdPrefix)
def test_id_names_its_kind(prefix: IdPrefix) -> None:
    """An id is the kind, an underscore and 32 hexadecimal digits."""
    kind, _, digits = new_id(prefix).partition("_")
    assert kind == prefix
    assert len(digits) == 32
    int(digits, 16)
