"""A server's collections pass over what was loaded at its start."""

from __future__ import annotations

import gc
import weakref

from api.collector import loaded_for_good
from api.settings import ApiSettings
from tests.api.service import serve


class Ring:
    """Garbage that only the collector finds."""

    def __init__(self) -> None:
        self.itself = self


def test_a_server_is_not_walked_and_its_garbage_is_found(settings: ApiSettings):
    """While it serves, its routes lie outside the collections; garbage made meanwhile is collected all the same."""
    assert gc.get_freeze_count() == 0
    with serve(settings) as service:
        assert gc.get_freeze_count() > 0
        assert not any(found is service.services for found in gc.get_objects())
        garbage = weakref.ref(Ring())
        gc.collect()
        assert garbage() is None
    assert gc.get_freeze_count() == 0


def test_what_was_set_aside_comes_back():
    """Afterwards it is walked again."""
    kept = Ring()
    with loaded_for_good():
        assert not any(found is kept for found in gc.get_objects())
    assert any(found is kept for found in gc.get_objects())
