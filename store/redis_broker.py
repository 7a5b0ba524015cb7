"""Celery's messages in Redis: kombu's transport, made to survive whatever lies in a queue."""

from __future__ import annotations

import functools
import json
from queue import Empty
from typing import Any

from kombu.transport import redis as kombu_redis

from store.wake_ups import read_wake_up


class Client(kombu_redis.PrefixedStrictRedis):
    """Hands on what is a wake-up. To kombu, anything else looks as if the queue had been empty."""

    def parse_response(self, connection: Any, command_name: str, **options: Any) -> Any:  # noqa: ANN401 - kombu's signature
        """Returns the answer to a command; raises Empty where a message was taken that is none."""
        answer = super().parse_response(connection, command_name, **options)
        if command_name != "BRPOP" or not answer:
            return answer
        key, content = answer
        message = read_wake_up(content, str(key))
        if message is None:
            raise Empty
        return key, json.dumps(message)


class Channel(kombu_redis.Channel):
    """Reads through that client."""

    def _get_client(self) -> Any:  # noqa: ANN401 - kombu's signature
        return functools.partial(Client, global_keyprefix=self.global_keyprefix)


class Transport(kombu_redis.Transport):
    """What Celery is told to use."""

    Channel = Channel
