"""Two-dimensional systems: ``python jobs/toy.py --help``."""

from bnce_dist.cli.toy import app

if __name__ == "__main__":
    app()
