"""Wake-ups leave by a thread of their own: at once, in order, few of a burst, and none is lost at the end."""

from __future__ import annotations

import threading
from pathlib import Path

from api.wake_sender import MOST_WAITING, WakeSender
from store.queue import Waker
from store.settings import StoreSettings

BURST = 100


class HeldWaker(Waker):
    """Sends nothing before it is let go."""

    def __init__(self, settings: StoreSettings) -> None:
        super().__init__(settings)
        self.sending, self.go_on = threading.Event(), threading.Event()

    def wake(self, queue_class: str, hint: str | None = None) -> bool:
        self.sending.set()
        assert self.go_on.wait(30)
        return super().wake(queue_class, hint)


def messages(settings: StoreSettings, queue_class: str) -> int:
    return len(list((settings.broker_dir / "messages").glob(f"*.{queue_class}.msg")))


def test_a_burst_costs_few_messages_and_nobody_waits(tmp_path: Path):
    """While the broker takes nothing a hundred submits return at once; what then goes out wakes each class."""
    settings = StoreSettings(data_dir=tmp_path, broker_url="filesystem://")
    waker = HeldWaker(settings)
    sender = WakeSender(waker)
    sender.ask("default", "first")
    assert waker.sending.wait(30)
    for number in range(BURST):
        sender.ask("default", f"job_{number}")
    sender.ask("other", "last")
    waker.go_on.set()
    sender.close()
    waker.close()
    assert messages(settings, "default") == 1 + MOST_WAITING
    assert messages(settings, "other") == 1


def test_it_sends_again_after_a_burst(tmp_path: Path):
    """What was left out of one burst is not held against the next wake-up, also after a pause of the service."""
    settings = StoreSettings(data_dir=tmp_path, broker_url="filesystem://")
    waker = Waker(settings)
    sender = WakeSender(waker)
    for _ in range(BURST):
        sender.ask("default", "job")
    sender.close()
    sent = messages(settings, "default")
    assert 0 < sent <= BURST
    sender.ask("default", "job")
    sender.close()
    waker.close()
    assert messages(settings, "default") == sent + 1
