"""Positions <-> model space, with exact log-determinants."""
