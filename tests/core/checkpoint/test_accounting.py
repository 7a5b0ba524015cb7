"""Every tensor of the source is accounted for."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from core.checkpoint.accounting import TensorAccount
from core.errors import ArtifactInvalidError

SOURCE = ("embed", "l.0.up.weight", "l.0.up.bias", "lm_head")
ACCOUNT = TensorAccount(
    kept=["embed"],
    quantized={"l.0.up.weight": "l.0.up", "l.0.up.bias": "l.0.up"},
    dropped={"lm_head": "tied to embed"},
)
WRITTEN = ("embed", "l.0.up.qweight", "l.0.up.scales")


def test_a_full_account_passes():
    """Kept, quantized and dropped together are the source."""
    ACCOUNT.check(SOURCE, WRITTEN)


@pytest.mark.parametrize(
    ("change", "source", "written", "message"),
    [
        ({}, (*SOURCE, "rope.inv_freq"), WRITTEN, "not accounted for, first 'rope.inv_freq'"),
        ({}, SOURCE[1:], WRITTEN, "not in the source, first 'embed'"),
        ({"kept": ["embed", "lm_head"]}, SOURCE, WRITTEN, "twice"),
        ({"dropped": {"lm_head": " "}}, SOURCE, WRITTEN, "without a reason"),
        ({}, SOURCE, WRITTEN[1:], "not written, first 'embed'"),
        ({}, SOURCE, ("embed",), r"not written, first 'l\.0\.up\.qweight'"),
    ],
)
def test_gaps_are_named(change: dict[str, Any], source: tuple[str, ...], written: tuple[str, ...], message: str):
    """A lost, invented, doubled or unexplained tensor is an error that names it."""
    with pytest.raises(ArtifactInvalidError, match=message):
        dataclasses.replace(ACCOUNT, **change).check(source, written)
