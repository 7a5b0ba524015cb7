"""Makes the Celery application and sends wake-ups: hints that a queue class has work. The truth is in the database.

Losing a wake-up or sending one twice does no harm, so sending never waits for long and never raises for a dead broker.
"""

from __future__ import annotations

import ssl
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import structlog
from celery import Celery
from kombu import Queue
from kombu.exceptions import ChannelError, KombuError

from store import filesystem_broker
from store.wake_ups import RUN_NEXT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from store.settings import StoreSettings

BREAKER_SECONDS = 5.0
KEY_PREFIX = "bitmill:"
# By its name alone: an installation on the filesystem broker does not load the Redis client.
REDIS_TRANSPORT = "store.redis_broker:Transport"

_REDIS_OPTIONS: Mapping[str, Any] = {
    "visibility_timeout": 300,
    "socket_timeout": 10,
    "socket_connect_timeout": 5,
    "socket_keepalive": True,
    "health_check_interval": 15,
    "global_keyprefix": KEY_PREFIX,
}
# The sender runs inside requests: one try, and about a second at most for a broker that does not answer.
_REDIS_SENDER_OPTIONS: Mapping[str, Any] = {
    **_REDIS_OPTIONS,
    "max_retries": 0,
    "socket_connect_timeout": 0.5,
    "socket_timeout": 1,
}


def make_celery(settings: StoreSettings) -> Celery:
    """Returns the application that workers run; it connects to nothing yet and becomes no process-wide default."""
    redis = _uses_redis(settings)
    return _configured(settings, {} if not redis else dict(_REDIS_OPTIONS), disable_prefetch=redis)


def _uses_redis(settings: StoreSettings) -> bool:
    return urlsplit(settings.broker_url).scheme != "filesystem"


def _configured(settings: StoreSettings, redis_options: dict[str, Any], *, disable_prefetch: bool) -> Celery:
    app = Celery("bitmill", set_as_current=False)
    if _uses_redis(settings):
        app.conf.update(
            broker_url=settings.broker_url,
            broker_transport=REDIS_TRANSPORT,
            broker_transport_options=redis_options,
        )
        if urlsplit(settings.broker_url).scheme == "rediss":
            # What the URL says about certificates has precedence.
            app.conf.update(broker_use_ssl={"ssl_cert_reqs": ssl.CERT_REQUIRED})
    else:
        app.conf.update(
            broker_url="filesystem://localhost",  # kombu warns about a URL without a host
            broker_transport=filesystem_broker.TRANSPORT,
            broker_transport_options=filesystem_broker.transport_options(settings.broker_dir),
        )
    app.conf.update(
        result_backend=None,
        task_queues=[Queue(name, routing_key=name) for name in settings.queue_classes],
        task_default_queue=settings.queue_classes[0],
        task_create_missing_queues=False,
        task_acks_late=False,
        task_reject_on_worker_lost=False,
        task_ignore_result=True,
        task_publish_retry=False,
        task_serializer="json",
        result_serializer="json",
        accept_content=["json"],
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=disable_prefetch,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_hijack_root_logger=False,
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        enable_utc=True,
    )
    return app


class Waker:
    """Sends wake-ups. Safe to share between threads; after a failure it does not try again for BREAKER_SECONDS."""

    def __init__(self, settings: StoreSettings) -> None:
        self._app = _configured(settings, dict(_REDIS_SENDER_OPTIONS), disable_prefetch=False)
        self._closed_until = 0.0

    @property
    def suspended(self) -> bool:
        """Whether a wake-up failed so recently that none is tried now."""
        return time.monotonic() < self._closed_until

    def wake(self, queue_class: str, hint: str | None = None) -> bool:
        """Returns whether the broker took the message. hint: a job id for the trace; the worker does not rely on it."""
        if self.suspended:
            return False
        try:
            self._app.send_task(
                RUN_NEXT,
                args=[queue_class],
                kwargs={"hint": hint},
                queue=Queue(queue_class),  # type: ignore[arg-type]  # the stub knows names only
                # Nothing is declared: the message goes to the queue by its name alone.
                declare=[],
                retry=False,
            )
        except (KombuError, ChannelError, OSError) as error:
            self._closed_until = time.monotonic() + BREAKER_SECONDS
            structlog.get_logger().warning("wake_up_not_sent", queue_class=queue_class, reason=str(error))
            return False
        return True

    def close(self) -> None:
        """Closes the connections to the broker."""
        self._app.close()
