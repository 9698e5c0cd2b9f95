"""Models of rows in Dask collections; needs ``pip install "mixedlearn[dask]"``."""

try:
    import dask.array
    import dask.dataframe  # noqa: F401
    import distributed  # noqa: F401
except ImportError as error:
    raise ImportError(
        "mixedlearn.dask needs Dask, its collections and its scheduler: "
        'pip install "mixedlearn[dask]".'
    ) from error

from mixedlearn.dask.regressor import DaskMixedLinearRegressor

__all__ = ["DaskMixedLinearRegressor"]
