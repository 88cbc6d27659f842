"""Where a run records itself: nothing, JSON lines, or MLflow."""
