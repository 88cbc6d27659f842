"""Planar systems: ``python jobs/planar.py --help``."""

from bnce_dist.cli.planar import app

if __name__ == "__main__":
    app()
