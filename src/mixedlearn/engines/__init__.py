"""Engines: the likelihood and its derivatives from cross-products."""
