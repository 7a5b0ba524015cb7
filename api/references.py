"""The rows that a batch's jobs are compared with, out of what their evaluations measured of the float models."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from api.schemas.batches import BatchRow, ReferenceRow


def references(table: Sequence[BatchRow]) -> list[ReferenceRow]:
    """Returns each model's rows once, in the table's order; more than one where jobs measured other figures.

    That one worker could not measure a row is told only where no other did.
    """
    found: list[ReferenceRow] = []
    for row in table:
        found += [reference for reference in _of_row(row) if reference not in found]
    measured = {(row.model_index, row.method) for row in found if row.missing is None}
    return [row for row in found if row.missing is None or (row.model_index, row.method) not in measured]


def _of_row(row: BatchRow) -> Iterator[ReferenceRow]:
    measured = row.evaluation
    if measured is None:
        return
    if measured.perplexity_float is not None:
        yield ReferenceRow(
            model=row.model,
            model_index=row.model_index,
            method="float",
            weights_bytes=measured.bytes_float,
            perplexity=measured.perplexity_float,
            perplexity_ratio=1.0,
            kl_divergence=0.0,
            top1_agreement=1.0,
            missing=None,
        )
    if (nf4 := measured.nf4) is not None:
        yield ReferenceRow(
            model=row.model,
            model_index=row.model_index,
            method="nf4",
            weights_bytes=nf4.bytes,
            perplexity=nf4.perplexity,
            perplexity_ratio=nf4.perplexity_ratio,
            kl_divergence=nf4.kl_divergence,
            top1_agreement=nf4.top1_agreement,
            missing=nf4.missing,
        )
