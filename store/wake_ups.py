"""Reads the one kind of message that the broker carries: a wake-up for a queue class, as Celery and kombu write it.

What is none is dropped with a warning, and the consumer goes on: behind this place Celery takes messages on trust, and
one that it stumbles over would end the worker or take a place among those that it may hold. Nothing is lost, since
messages are hints.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from typing import Annotated, Any, Literal

import structlog
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

RUN_NEXT = "bitmill.run_next"
QUEUE_CLASS = r"^[a-z0-9_-]+$"
"""Part of a file name in the filesystem broker and of a key in Redis."""


class _Part(BaseModel):
    """A part of a message. What a newer sender may have added is left out, not refused."""

    model_config = ConfigDict(strict=True, extra="ignore")


class _Options(_Part):
    hint: str | None = None


_Arguments = TypeAdapter(
    tuple[tuple[Annotated[str, Field(pattern=QUEUE_CLASS)]], _Options, dict[str, object]],
)


def _rewritten(body: str) -> str:
    """Returns the task's arguments without callbacks, chords and whatever else Celery would run for a sender."""
    arguments, options, _ = _Arguments.validate_json(b64decode(body, validate=True))
    return b64encode(json.dumps([arguments, options.model_dump(), {}]).encode()).decode()


class _Headers(_Part):
    task: Literal["bitmill.run_next"]
    id: str


class _DeliveryInfo(_Part):
    exchange: str
    routing_key: str


class _Properties(_Part):
    delivery_tag: str
    delivery_info: _DeliveryInfo
    body_encoding: Literal["base64"]


class _Message(_Part):
    body: Annotated[str, AfterValidator(_rewritten)]
    headers: _Headers
    properties: _Properties
    content_type: Literal["application/json"] = Field(alias="content-type")
    content_encoding: Literal["utf-8"] = Field(alias="content-encoding")


def read_wake_up(content: bytes, source: str) -> dict[str, Any] | None:
    """Returns a message for kombu, of fields that were checked and no others; None, with a warning, if it is none.

    source: the file or queue in which it lay.
    """
    try:
        return _Message.model_validate_json(content).model_dump(by_alias=True)
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors(include_url=False)]
        structlog.get_logger().warning(
            "broken_message_dropped", source=source, size_bytes=len(content), problems=problems
        )
        return None
