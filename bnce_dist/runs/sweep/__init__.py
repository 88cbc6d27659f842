"""Searches over spaces of settings: many trials of one kind of run."""
