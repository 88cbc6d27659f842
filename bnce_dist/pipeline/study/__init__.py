"""Studies: many trials of one job over a space of settings."""
