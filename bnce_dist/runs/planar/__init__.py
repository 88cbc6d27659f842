"""Densities in the plane, with known answers."""
