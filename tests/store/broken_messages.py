"""Messages that are no wake-ups: bytes without sense, and what only a hand or another program would send."""

from __future__ import annotations

import base64
import json
import uuid

from store.wake_ups import RUN_NEXT

TASK = {"task": RUN_NEXT, "id": "an id"}
ARGUMENTS = [["default"], {"hint": "somebody else's"}, {}]


def message(
    arguments: object, headers: object, properties: dict[str, object] | None = None, **changes: object
) -> bytes:
    """Returns a message as kombu writes it. arguments: made JSON and base64; a string is taken as it stands."""
    encoded = base64.b64encode(json.dumps(arguments).encode()).decode()
    body = arguments if isinstance(arguments, str) else encoded
    kind = {"content-type": "application/json", "content-encoding": "utf-8"}
    delivery = {"exchange": "", "routing_key": "default"}
    standing = {"delivery_tag": uuid.uuid4().hex, "delivery_info": delivery, "body_encoding": "base64"}
    whole = {"body": body, "headers": headers, "properties": {**standing, **(properties or {})}, **kind, **changes}
    return json.dumps(whole).encode()


BROKEN_MESSAGES = {
    "empty": b"",
    "truncated": b'{"body": "W1siZGVmYXVsdCJdLCB7fSwge31d", "content-en',
    "not JSON": b"\x00\xff\xfe",
    "nested without end": b"[" * 100_000,
    "null": b"null",
    "a list": b"[1, 2, 3]",
    "a type of kombu's with a wrong value": b'{"__type__": "decimal", "__value__": "x"}',
    "no body": message(ARGUMENTS, TASK, body=None),
    "no properties": b'{"body": "e30="}',
    "no delivery tag": message(ARGUMENTS, TASK, {"delivery_tag": None}),
    "no delivery": message(ARGUMENTS, TASK, {"delivery_info": {}}),
    "another encoding": message(ARGUMENTS, TASK, {"body_encoding": "rot26"}),
    "no base64": message("?", TASK),
    "a body that is no JSON": message("AAEC", TASK),
    "a body that is no task": message({}, {}),
    "a body that is a number": message(5, TASK),
    "a body without arguments": message([], TASK),
    "arguments that do not fit": message([[1, 2, 3], {"more": 4}, {}], TASK),
    "a queue class that is none": message([["../x"], {}, {}], TASK),
    "a hint that is a list": message([["default"], {"hint": [1]}, {}], TASK),
    "callbacks that are a number": message([["default"], {}, 5], TASK),
    "a task without an id": message(ARGUMENTS, {"task": RUN_NEXT}),
    "a task that is a list": message(ARGUMENTS, {**TASK, "task": [1]}),
    "a task of somebody else": message(ARGUMENTS, {**TASK, "task": "reports.send"}),
    "headers that are a list": message(ARGUMENTS, [1]),
    "another content": message(ARGUMENTS, TASK, **{"content-type": "application/x-python-serialize"}),
    "a content that is a number": message(ARGUMENTS, TASK, **{"content-type": 5}),
}
