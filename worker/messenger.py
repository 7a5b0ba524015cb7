"""Empties the outbox of webhooks: every few seconds, in a thread of its own, since receivers may be slow.

One runs in every worker process; the database decides who sends what. An attempt whose worker dies comes again.
"""

from __future__ import annotations

import os
import random
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import structlog

from store.errors import SecretKeyRequiredError, SecretUnreadableError, StorageUnavailableError
from store.vault import Vault
from store.webhooks import RETRY_SECONDS, Parcel
from worker.delivery import Outcome, Sender
from worker.services import Services

PARCELS = 32
SENDERS = 8
LEASE_SECONDS = 120.0
"""Longer than all parcels of one round take together at their worst."""
KEPT_SECONDS = 30 * 86_400.0
JITTER = 0.1
STOP_SECONDS = 30.0
TIDY_EVERY = 300


class Messenger:
    """A thread of the worker process, from `start` to `stop`."""

    def __init__(self, services: Services, sender: Sender | None = None) -> None:
        self._services = services
        self._vault = Vault.from_settings(services.settings)
        self._sender = sender or Sender(private=services.settings.webhooks_to_private)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="messenger", daemon=True)
        self._log = structlog.get_logger().bind(worker_id=services.worker_id)

    def start(self) -> None:
        """Starts sending."""
        self._thread.start()

    def stop(self) -> None:
        """Stops sending; returns once no attempt is under way, or after a while."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(STOP_SECONDS)

    def round(self) -> int:
        """Fills the outbox and sends what is due; returns how many attempts that were.

        Raises StorageUnavailableError.
        """
        with self._services.database.transaction() as repository:
            repository.fill_outbox()
        with self._services.database.transaction() as repository:
            parcels = repository.take_parcels(PARCELS, LEASE_SECONDS)
        if parcels:
            with ThreadPoolExecutor(SENDERS, thread_name_prefix="webhook") as pool:
                list(pool.map(self._attempt, parcels))
        return len(parcels)

    def tidy(self) -> None:
        """Removes deliveries that have long been over. Raises StorageUnavailableError."""
        with self._services.database.transaction() as repository:
            repository.remove_old_deliveries(KEPT_SECONDS)

    def _run(self) -> None:
        try:
            self._keep_sending()
        finally:
            if not self._stopped.is_set():
                # Like a dead dispatcher: a process that does half its work is ended, so that a whole one is started.
                self._log.error("messenger_died")
                os.kill(os.getpid(), signal.SIGTERM)

    def _keep_sending(self) -> None:
        rounds = 0
        while not self._stopped.is_set():
            sent = 0
            try:
                sent = self.round()
                if rounds % TIDY_EVERY == 0:
                    self.tidy()
            except StorageUnavailableError as error:
                self._log.warning("messenger_failed", reason=str(error))
            rounds += 1
            if sent < PARCELS:
                self._stopped.wait(self._services.settings.sweep_seconds)

    def _attempt(self, parcel: Parcel) -> None:
        delivery = parcel.delivery
        outcome = self._send(parcel)
        retry = None
        if outcome.error is not None and not outcome.gone and delivery.attempts <= len(RETRY_SECONDS):
            retry = RETRY_SECONDS[delivery.attempts - 1] * (1 + random.uniform(0, JITTER))  # noqa: S311 - no secret
        with self._services.database.transaction() as repository:
            repository.record_attempt(
                delivery, status_code=outcome.status_code, error=outcome.error, retry_seconds=retry
            )
            if outcome.gone:
                repository.disable_webhook(delivery.webhook_id, "The receiver answered 410: it wants no more messages.")
        log = self._log.info if outcome.error is None else self._log.warning
        log("webhook_sent", delivery_id=delivery.id, attempt=delivery.attempts, reason=outcome.error)

    def _send(self, parcel: Parcel) -> Outcome:
        try:
            secret = self._vault.open(parcel.secret_sealed)
        except (SecretKeyRequiredError, SecretUnreadableError) as error:
            return Outcome(status_code=None, error=f"Not sent: {error}")
        return self._sender.send(parcel, secret)
