"""Covariances of the noise: families of matrices, one file each."""
