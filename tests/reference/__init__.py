"""Slow, independent references that the fast estimator is checked against, and stored numbers."""

from pathlib import Path

FOLDER = Path(__file__).parent
