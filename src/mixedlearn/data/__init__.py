"""Rows, and the sums over rows that determine the likelihood."""
