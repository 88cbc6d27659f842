"""OpenMM's expression language: read, differentiated, and evaluated by torch."""
