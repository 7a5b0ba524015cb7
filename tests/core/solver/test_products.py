from __future__ import annotations

import numba
import pytest
import torch

from core.kernels.vectors import has_feature
from core.solver.products import FloatRows, PackedRows, RowPacker
from tests.core.solver.problems import correlated_inputs

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("tokens", "width"), [(1, 1), (2, 48), (77, 50), (2050, 131)])
def test_the_triangle_is_that_of_the_exact_product(tokens: int, width: int, dtype: torch.dtype) -> None:
    """Added twice, XᵀX is summed in float32 for odd token counts, partial panels and several chunks alike."""
    X_NI = correlated_inputs(tokens, width).to(dtype)
    sum_II, packer = torch.zeros(width, width), RowPacker()
    for _ in range(2):
        for _, rows in packer.parts(X_NI):
            rows.add_gram(sum_II)
    exact = 2 * (X_NI.double().T @ X_NI.double())
    torch.testing.assert_close(sum_II.triu(), exact.triu().float(), rtol=2e-5, atol=2e-4)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("tokens", "width"), [(1, 1), (2, 48), (77, 50), (2050, 131)])
def test_the_cross_product_is_exact_and_has_the_side_asked_for_first(
    tokens: int, width: int, dtype: torch.dtype
) -> None:
    """Rows of two paths give otherᵀ X, or its transpose, Xᵀ other."""
    X_NI, other = correlated_inputs(tokens, width).to(dtype), correlated_inputs(tokens, width, seed=3).to(dtype)
    sum_II, crossed_II = torch.zeros(width, width), torch.zeros(width, width)
    for part, rows in RowPacker().parts(X_NI):
        rows.add_cross(sum_II, other[part])
        rows.add_crossed(crossed_II, other[part])
    exact = other.double().T @ X_NI.double()
    torch.testing.assert_close(sum_II, exact.float(), rtol=2e-5, atol=2e-4)
    torch.testing.assert_close(crossed_II, exact.T.float(), rtol=2e-5, atol=2e-4)


def test_rows_without_tokens_add_nothing() -> None:
    """A batch of padding only leaves the sums alone."""
    for dtype in (torch.bfloat16, torch.float32):
        sum_II, nothing = torch.ones(5, 5), torch.empty(0, 5, dtype=dtype)
        for part, rows in RowPacker().parts(nothing):
            rows.add_gram(sum_II)
            rows.add_cross(sum_II, nothing[part])
        assert torch.equal(sum_II, torch.ones(5, 5))


def test_bfloat16_is_packed_where_the_processor_multiplies_it() -> None:
    """The instruction decides about bfloat16 rows; float32 rows are never rounded."""
    kind = PackedRows if has_feature("avx512bf16") else FloatRows
    for dtype, expected in ((torch.bfloat16, kind), (torch.float32, FloatRows)):
        assert [type(rows) for _, rows in RowPacker().parts(torch.ones(2, 3, dtype=dtype))] == [expected]


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf, 2.0**100, -(2.0**127)])
@pytest.mark.parametrize(("tokens", "width"), [(1, 1), (2, 48), (7, 50), (9, 96)])
def test_packing_sees_every_value_that_takes_a_closer_look(tokens: int, width: int, value: float) -> None:
    """At each end of rows and columns, of whole and partial panels and pairs; smaller values of either sign pass."""
    X_NI = torch.full((tokens, width), -(2.0**99)).bfloat16()
    assert (RowPacker().moderate_rows(X_NI) is None) == (not has_feature("avx512bf16"))
    for row in {0, tokens - 1}:
        for column in {0, width - 1}:
            spoilt = X_NI.clone()
            spoilt[row, column] = value
            assert RowPacker().moderate_rows(spoilt) is None


def test_what_is_packed_of_one_batch_leaves_nothing_in_the_next() -> None:
    """A smaller batch, of an odd number of tokens, is summed in the memory of a larger one as in memory of its own."""
    packer = RowPacker()
    found = []
    for X_NI in (correlated_inputs(64, 60).bfloat16(), correlated_inputs(33, 60, seed=3).bfloat16()):
        found = [torch.zeros(60, 60), torch.zeros(60, 60)]
        for sum_II, packing in zip(found, (packer, RowPacker()), strict=True):
            for part, rows in packing.parts(X_NI):
                rows.add_gram(sum_II)
                rows.add_cross(sum_II, X_NI[part])
    assert torch.equal(*found)


def test_the_sums_do_not_depend_on_the_number_of_threads() -> None:
    """One thread and all of them give the same bytes."""
    X_NI = correlated_inputs(300, 200).bfloat16()
    found = []
    threads = numba.get_num_threads()
    try:
        for count in (1, threads):
            numba.set_num_threads(count)
            found.append(torch.zeros(200, 200))
            for _, rows in RowPacker().parts(X_NI):
                rows.add_gram(found[-1])
    finally:
        numba.set_num_threads(threads)
    assert torch.equal(*found)
