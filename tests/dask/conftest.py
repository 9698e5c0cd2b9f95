"""One cluster of processes for all tests of a module."""

import pytest
from distributed import Client, LocalCluster


@pytest.fixture(scope="module")
def client():
    """Two workers, each a process, as on a cluster."""
    with (
        LocalCluster(
            n_workers=2, processes=True, threads_per_worker=1, dashboard_address=":0"
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client
