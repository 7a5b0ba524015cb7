"""In which pieces the solver works, for itself and for the estimate of its time; standard library only."""

from __future__ import annotations

from typing import Final

UPDATE_COLUMNS: Final = 128
"""Columns that are solved or refined between two products: a row's part of them stays in the nearest cache."""
STRETCH_COLUMNS: Final = 640
"""Columns that are solved between two looks at all earlier ones: a square of the Hessian's factor is inverted for them,
which costs little while it is much narrower than the widest Hessians; one that is no wider is inverted as a whole."""
LEAF_COLUMNS: Final = 192
"""Up to this width torch's own factorization is as fast as products are."""
