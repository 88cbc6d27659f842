"""Check a cluster before a run: ``python jobs/preflight.py --help``."""

from bnce_dist.cli.preflight import app

if __name__ == "__main__":
    app()
