"""Sums of rows whose levels are numbers."""

import pandas as pd

from mixedlearn.data.sums import sum_rows


def sums_of(X, y, codes, n_levels, slopes, weights=None, **options):
    """As `sum_rows`, with the numbers of levels for their names."""
    levels = [pd.RangeIndex(m) for m in n_levels]
    return sum_rows(X, y, codes, levels, slopes, weights, **options)
