"""Ranges and tags, against what RFC 9110 says of every input."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers

from api.conditional import ByteRange, not_modified, requested_range, strong_etag, weak_etag
from api.errors import RangeNotSatisfiableError

TAG = strong_etag("ab")
numbers = st.integers(0, 50)


def asked(text: str, size: int) -> ByteRange | None:
    return requested_range(Headers({"range": text}), TAG, size)


@given(numbers, numbers, numbers)
def test_a_range_is_what_slicing_would_give(first: int, last: int, size: int):
    """Both ends included, cut at the size; refused where nothing is left; ignored where it runs backwards."""
    try:
        found = asked(f"bytes={first}-{last}", size)
    except RangeNotSatisfiableError:
        assert first >= size
        assert last >= first
        return
    if last < first:
        assert found is None
    else:
        assert found is not None
        assert range(found.start, found.end) == range(size)[first : last + 1]


@given(numbers, numbers)
def test_a_suffix_is_what_slicing_would_give(length: int, size: int):
    try:
        found = asked(f"bytes=-{length}", size)
    except RangeNotSatisfiableError:
        assert 0 in {length, size}
    else:
        assert found is not None
        assert range(found.start, found.end) == range(size)[-length:]


@given(st.text(max_size=30))
def test_no_header_is_a_failure(text: str):
    """Whatever stands there, the answer is a range, nothing, or the refusal."""
    try:
        found = asked(text.encode("latin-1", "replace").decode("latin-1"), 10)
    except RangeNotSatisfiableError:
        return
    assert found is None or 0 <= found.start < found.end <= 10


def test_weak_comparison_takes_either_form():
    """If-None-Match compares what stands between the quotes."""
    for given_tag in ('"3"', 'W/"3"', '"2", W/"3"', "*"):
        assert not_modified(Headers({"if-none-match": given_tag}), weak_etag(3))
    for given_tag in ('"33"', "3", "", 'W/"2"'):
        assert not not_modified(Headers({"if-none-match": given_tag}), weak_etag(3))
    assert not not_modified(Headers({}), weak_etag(3))
