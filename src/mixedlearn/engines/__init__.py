"""Engines: the likelihood and its derivatives from sums over the rows."""
