"""Several grouping factors: elimination, level by level where that is possible."""
