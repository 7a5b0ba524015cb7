"""The Celery application of the worker: `celery -A worker.celery_app worker --pool threads --concurrency 1 -Q default`.

The one module with state at import, since Celery finds its application by importing a module.
"""

from __future__ import annotations

from typing import IO, Any

import structlog
from celery import Celery, bootsteps, signals
from celery.worker import WorkController
from kombu.asynchronous import Hub

from store.queue import make_celery
from worker.dispatcher import Dispatcher
from worker.kernels import hold_kernels
from worker.logs import configure_logging
from worker.messenger import Messenger
from worker.publisher import Publisher
from worker.services import Services, open_services
from worker.settings import settings_from_env
from worker.tasks import register

COLD = "Cold"
LOOP_SECONDS = 0.1
"""The longest sleep of Celery's loop, which asks Redis for the next message only when it wakes: with its own second, a
worker that has just become free would hear of work that much later."""


def create_app(services: Services) -> Celery:
    """Returns an application whose workers work jobs with these services."""
    app = make_celery(services.settings)
    register(app, services)

    class DispatcherStep(bootsteps.StartStopStep):
        """Runs dispatcher, messenger and publisher for as long as the worker runs."""

        # Started after the pool and stopped before it, so that no wake-up is sent for a worker that is ending.
        requires = ("celery.worker.components:Pool",)

        # Any: the type stubs of WorkController know no concurrency.
        def __init__(self, parent: Any, **options: Any) -> None:  # noqa: ANN401 - Celery's signature
            super().__init__(parent, **options)
            services.slots.provide(parent.concurrency)
            # What -Q named; without it, every queue class of the settings.
            self._dispatcher = Dispatcher(services, app, tuple(app.amqp.queues.consume_from))
            self._messenger = Messenger(services)
            self._publisher = Publisher(services)
            # Held to the end of the process: jobs may run on when this step has been stopped.
            self._kernels = _kernels(services)

        def start(self, parent: WorkController) -> None:  # noqa: ARG002 - Celery's signature
            """Starts the threads beside the jobs."""
            self._dispatcher.start()
            self._messenger.start()
            self._publisher.start()

        def register_with_event_loop(self, parent: WorkController, hub: Hub) -> None:  # noqa: ARG002 - Celery's signature
            """Keeps the loop awake; it is called anew for each connection to the broker."""
            hub.call_repeatedly(LOOP_SECONDS, lambda: None)

        def stop(self, parent: WorkController) -> None:  # noqa: ARG002 - Celery's signature
            """Stops them."""
            self._dispatcher.stop()
            self._messenger.stop()
            self._publisher.stop()
            services.tracing.close()

    app.steps["worker"].add(DispatcherStep)
    _follow_shutdown(services)
    return app


def _kernels(services: Services) -> IO[bytes] | None:
    try:
        return hold_kernels(services.settings.cache_dir)
    except OSError as error:  # a cache without locks is no reason not to work
        structlog.get_logger().warning("kernels_not_held", reason=str(error))
        return None


def _follow_shutdown(services: Services) -> None:
    """Connects the process's signals to the drain: TERM finishes the block, a second TERM or a QUIT does not wait."""

    def drain(how: str = "", **_: object) -> None:
        services.drain.request(at_once=how == COLD)

    def use_our_logging(**_: object) -> None:
        configure_logging()

    signals.worker_shutting_down.connect(drain, weak=False)
    # A listener of this signal keeps Celery from setting up logging of its own.
    signals.setup_logging.connect(use_our_logging, weak=False)


app = create_app(open_services(settings_from_env()))
