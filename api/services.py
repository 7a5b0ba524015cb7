"""What one running API holds: database, object store, waker, signer, metrics. Made once per application, no global."""

from __future__ import annotations

from dataclasses import dataclass

from anyio import CapacityLimiter

from api.builtin_set import BuiltinSet
from api.calibration_facts import CalibrationFacts
from api.machine import Machine
from api.metrics import Metrics
from api.model_facts import ModelFactsCache
from api.outlines import Outlines
from api.paging import PageSigner
from api.ratelimit import RateLimiter
from api.settings import ApiSettings
from api.streams.hub import Hub
from api.wake_sender import WakeSender
from store.artifacts import ArtifactStore
from store.queue import Waker
from store.session import Database
from store.tracing import Tracing
from store.vault import Vault, service_secret

SUBMITS_AT_ONCE = 4
"""More threads at work on a burst of submits take the interpreter from each other, and from whoever only reads; they
wait in order of arrival instead, each about as long."""

UPLOADS_AT_ONCE = 2
"""Archives that are read at a time: each takes a thread for as long as its bytes take, and other requests need some."""


class KeyRequiredError(Exception):
    """The service would be reachable from other machines, and nobody needed a key."""

    def __init__(self, host: str) -> None:
        self.host = host
        super().__init__(
            f"Refusing to listen on {host} without an API key. Make one with 'bitmill keys create', "
            "or set BITMILL_HOST to 127.0.0.1."
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """Handed to routes by `api.deps`."""

    settings: ApiSettings
    database: Database
    artifacts: ArtifactStore
    waker: Waker
    wake_ups: WakeSender
    submits: CapacityLimiter
    uploads: CapacityLimiter
    builtin_set: BuiltinSet
    calibration_facts: CalibrationFacts
    model_facts: ModelFactsCache
    outlines: Outlines
    signer: PageSigner
    metrics: Metrics
    hub: Hub
    machine: Machine
    rates: RateLimiter
    tracing: Tracing
    vault: Vault

    @classmethod
    def from_settings(cls, settings: ApiSettings) -> Services:
        """Opens nothing that could fail for a reason outside this machine; connections are made on first use."""
        database = Database(settings.database_url)
        artifacts = ArtifactStore.from_settings(settings, database.reserve_blob)
        waker = Waker(settings)
        return cls(
            settings=settings,
            database=database,
            artifacts=artifacts,
            waker=waker,
            wake_ups=WakeSender(waker),
            submits=CapacityLimiter(SUBMITS_AT_ONCE),
            uploads=CapacityLimiter(UPLOADS_AT_ONCE),
            builtin_set=BuiltinSet(database, artifacts),
            calibration_facts=CalibrationFacts(artifacts, settings.data_dir / "uploads"),
            model_facts=ModelFactsCache(),
            outlines=Outlines(artifacts, settings.cache_dir / "outlines"),
            tracing=Tracing(settings.otlp_endpoint, "bitmill-api"),
            signer=PageSigner(service_secret(settings)),
            metrics=Metrics(),
            machine=Machine(settings.cache_dir),
            rates=RateLimiter(),
            vault=Vault.from_settings(settings),
            hub=Hub(database, poll_seconds=settings.stream_poll_seconds, max_readers=settings.max_streams),
        )

    def check_start(self) -> None:
        """Raises KeyRequiredError where other machines could connect and no key exists."""
        if self.settings.loopback:
            return
        with self.database.reading() as repository:
            if not repository.any_api_key():
                raise KeyRequiredError(self.settings.host)

    def close(self) -> None:
        """Closes idle connections."""
        self.hub.release()
        self.wake_ups.close()
        self.waker.close()
        self.tracing.close()
        self.database.dispose()
