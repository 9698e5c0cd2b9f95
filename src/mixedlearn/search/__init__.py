"""The search for the optimum of a likelihood."""
