"""Linear mixed models for scikit-learn."""
