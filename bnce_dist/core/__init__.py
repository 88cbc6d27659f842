"""The mathematics: interpolants, objectives, ODEs, weights, free energies. Torch and numpy only."""
