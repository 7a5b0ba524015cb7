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


@pytest.mark.parametrize("prefix", IdPrefix)
def test_id_names_its_kind(prefix: IdPrefix) -> None:
    """An id is the kind, an underscore and 32 hexadecimal digits."""
    kind, _, digits = new_id(prefix).partition("_")
    assert kind == prefix
    assert len(digits) == 32
    int(digits, 16)
