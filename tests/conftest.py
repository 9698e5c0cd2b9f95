"""Every test process computes with one thread.

The tests run in as many processes as there are cores. Threads of linear algebra on top of that wait
for each other and take many times as long.
"""

from threadpoolctl import threadpool_limits

import mixedlearn  # noqa: F401  (so that the libraries to be limited are loaded)

threadpool_limits(1)
