"""The engine of models whose noise is correlated or has several variances."""
