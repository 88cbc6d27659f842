"""Kinds of runs, each one function."""
