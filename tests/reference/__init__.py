"""Slow, independent references that the fast estimator is checked against."""
