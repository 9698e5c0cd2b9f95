"""What some of the versions of scikit-learn that are supported cannot do."""

import polars as pl
import pytest
import sklearn
from sklearn.utils.fixes import parse_version

VERSION = parse_version(sklearn.__version__)
# Before 1.8 scikit-learn does not ask a Pipeline, a search or an instance what `score` takes.
ASKS_FOR_SCORE = parse_version("1.8") <= VERSION
asks_for_score = pytest.mark.skipif(not ASKS_FOR_SCORE, reason="needs scikit-learn 1.8")
# Before 1.9 scikit-learn reads the names of polars' columns by a protocol that polars has dropped.
NAMES_POLARS = hasattr(pl.DataFrame, "__dataframe__") or parse_version("1.9") <= VERSION
names_polars = pytest.mark.skipif(not NAMES_POLARS, reason="scikit-learn too old for this polars")
