"""Command lines: one module for each job, all made of the same parts."""
