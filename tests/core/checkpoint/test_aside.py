"""A thread beside a run: its order, its errors, its time, and that it takes no cores from the run."""

from __future__ import annotations

import threading

import pytest
import torch

from core.checkpoint.aside import Aside
from core.errors import NumericalError
from core.profile import Profile, Work, span


def test_pieces_run_in_order_and_hand_back_what_they_return():
    done: list[int] = []
    with Aside("test") as thread:
        pieces = [thread.begin(lambda number=number: done.append(number) or number) for number in range(20)]
        assert [piece.result() for piece in pieces] == list(range(20))
    assert done == list(range(20))


def test_an_error_keeps_its_class_and_the_next_piece_runs():
    """The caller gets the very error; nothing of it stays behind."""
    error = NumericalError("layers.0", "no factor.")

    def fail() -> None:
        raise error

    with Aside("test") as thread:
        failed, later = thread.begin(fail), thread.begin(lambda: 7)
        with pytest.raises(NumericalError) as caught:
            failed.result()
        assert caught.value is error
        assert later.result() == 7


def test_it_has_one_core_and_the_run_keeps_its_own():
    """Torch's count of threads is each thread's own."""
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with Aside("test") as thread:
            assert thread.begin(torch.get_num_threads).result() == 1
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_its_seconds_are_told_beside_those_of_the_run():
    """A span in the thread adds nothing to the run's own seconds."""
    profile = Profile()

    def work() -> None:
        with span(Work.PACK):
            threading.Event().wait(0.01)

    with profile.recording(), Aside("test") as thread:
        thread.begin(work).result()
    assert profile.amounts[Work.PACK].seconds == 0
    assert profile.amounts[Work.PACK].seconds_beside >= 0.01


def test_the_end_waits_for_the_piece_under_way_and_drops_the_rest():
    started, done = threading.Event(), []

    def slow() -> None:
        started.set()
        threading.Event().wait(0.02)
        done.append("slow")

    with Aside("test") as thread:
        thread.begin(slow)
        dropped = [thread.begin(lambda: done.append("dropped")) for _ in range(3)]
        started.wait()
    assert done == ["slow"]
    assert all(piece.done for piece in dropped)
