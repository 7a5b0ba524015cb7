"""Reading wake-ups: what Celery sent comes back whole, what nobody can read is none, and nothing else passes."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from store.queue import Waker
from store.settings import StoreSettings
from store.wake_ups import RUN_NEXT, read_wake_up
from tests.store.broken_messages import ARGUMENTS, BROKEN_MESSAGES, TASK, message

STRANGE = {"timelimit": "soon", "eta": 5, "expires": [], "compression": "squeeze", "shadow": {"a": 1}}
"""Headers that Celery acts on without a look."""


def test_what_was_sent_is_read(tmp_path: Path):
    """The message of a real sender keeps its task, its id, its arguments and its way."""
    settings = StoreSettings(data_dir=tmp_path)
    Waker(settings).wake("gpu", "job_1")
    [path] = (settings.broker_dir / "messages").iterdir()
    sent, read = json.loads(path.read_bytes()), read_wake_up(path.read_bytes(), path.name)
    assert read is not None
    assert json.loads(base64.b64decode(read["body"])) == [["gpu"], {"hint": "job_1"}, {}]
    assert read["headers"] == {"task": RUN_NEXT, "id": sent["headers"]["id"]}
    for name in ("delivery_tag", "delivery_info", "body_encoding"):
        assert read["properties"][name] == sent["properties"][name]
    for name in ("content-type", "content-encoding"):
        assert read[name] == sent[name]


@pytest.mark.parametrize("name", BROKEN_MESSAGES)
def test_what_is_none_is_said(name: str):
    """With where it lay, its size and what is wrong."""
    with capture_logs() as logs:
        assert read_wake_up(BROKEN_MESSAGES[name], "default") is None
    [line] = logs
    assert (line["event"], line["source"], line["log_level"]) == ("broken_message_dropped", "default", "warning")
    assert line["size_bytes"] == len(BROKEN_MESSAGES[name])
    assert line["problems"]


def test_what_celery_would_act_on_is_left_out():
    """Times, limits, callbacks and chords of a sender that is none of ours go no further."""
    arguments = [*ARGUMENTS[:2], {"callbacks": [{"task": "x"}], "chord": 5}]
    plain = read_wake_up(message(ARGUMENTS, TASK), "default")
    strange = read_wake_up(message(arguments, {**TASK, **STRANGE}), "default")
    assert plain is not None
    assert strange is not None
    assert (plain["body"], plain["headers"]) == (strange["body"], strange["headers"])


TREES = st.recursive(st.none() | st.text(), lambda inner: st.dictionaries(st.text(), inner))


@given(st.binary() | TREES.map(lambda tree: json.dumps(tree).encode()))
def test_nothing_raises(content: bytes):
    """Whatever the bytes, the answer is a message or none."""
    read_wake_up(content, "default")
