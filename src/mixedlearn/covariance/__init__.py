"""Covariances of the random effects of a level."""
