"""All SQL of the product: turns calls into rows and rows into the values of `store.jobs`, inside one transaction.

It never commits; `store.session.Database` does. The parts are split by subject; callers see one Repository.
"""

from __future__ import annotations

from store.repository.batches import BatchPart
from store.repository.blobs import BlobPart
from store.repository.catalog import CatalogPart
from store.repository.checkpoints import CheckpointPart
from store.repository.endings import EndingPart
from store.repository.expiry import ExpiryPart
from store.repository.history import HistoryPart
from store.repository.keys import KeyPart
from store.repository.leases import LeasePart
from store.repository.logs import LogPart
from store.repository.measurements import MeasurementPart
from store.repository.models import ModelPart
from store.repository.publications import PublicationPart
from store.repository.queue import QueuePart
from store.repository.retention import RetentionPart
from store.repository.transfer import TransferPart
from store.repository.webhooks import WebhookPart

__all__ = ["Repository"]


class Repository(
    MeasurementPart,
    BatchPart,
    LeasePart,
    EndingPart,
    HistoryPart,
    CatalogPart,
    ModelPart,
    KeyPart,
    BlobPart,
    CheckpointPart,
    QueuePart,
    WebhookPart,
    LogPart,
    TransferPart,
    RetentionPart,
    ExpiryPart,
    PublicationPart,
):
    """Every question and every change, on one open connection. Use it inside `Database.transaction()` only."""
