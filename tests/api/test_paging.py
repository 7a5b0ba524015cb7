"""Page tokens: what was sealed comes back, and nothing else does."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.errors import InvalidRequestError
from api.paging import PageRequest, PageSigner
from store.vault import load_or_create_secret

SIGNER = PageSigner(b"s" * 32)
values = st.dictionaries(st.text(max_size=8), st.none() | st.text(max_size=8) | st.integers(), max_size=4)


@given(values, values)
def test_a_place_comes_back_for_the_same_filters_alone(place: dict[str, object], filters: dict[str, object]):
    token = SIGNER.seal(place, filters)
    assert token.isascii()
    assert SIGNER.open(token, filters) == place
    with pytest.raises(InvalidRequestError):
        SIGNER.open(token, {**filters, "one more": 1})
    with pytest.raises(InvalidRequestError):
        PageSigner(b"t" * 32).open(token, filters)


@given(st.text(max_size=80))
def test_no_made_up_token_opens(token: str):
    with pytest.raises(InvalidRequestError):
        SIGNER.open(token, {})


@given(st.integers(min_value=0, max_value=20), st.integers(min_value=1, max_value=7))
def test_pages_hold_every_row_once(rows: int, size: int):
    """Each page but the last is full and names the next one, also where the rows end with a page."""
    seen: list[int] = []
    token: str | None = None
    while True:
        asked = PageRequest(signer=SIGNER, bound_to={"list": "numbers"}, size=size, token=token)
        begin = asked.after(lambda place: int(place["row"]) + 1) or 0
        page = asked.cut(list(range(rows))[begin : begin + asked.limit], lambda row: {"row": row})
        seen += page.rows
        token = page.next_token
        if token is None:
            break
        assert len(page.rows) == size
    assert seen == list(range(rows))


def test_processes_that_start_together_share_one_secret(tmp_path: Path):
    """Whoever comes first wins; nobody signs with a secret that is then replaced."""
    found: list[bytes] = []
    path = tmp_path / "new" / "secret"
    threads = [threading.Thread(target=lambda: found.append(load_or_create_secret(path))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    assert len(found) == 8
    assert [entry.name for entry in path.parent.iterdir()] == ["secret"]
