"""Velocity fields that others trained and released."""
