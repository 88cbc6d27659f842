"""Many molecules, one run each, and one table."""
