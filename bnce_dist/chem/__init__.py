"""Molecules, force fields, coordinates, simulation and reference free energies."""
