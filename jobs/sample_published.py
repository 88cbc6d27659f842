"""Sample a published velocity field: ``python jobs/sample_published.py --help``."""

from bnce_dist.cli.published import app

if __name__ == "__main__":
    app()
