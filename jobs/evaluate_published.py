"""Weigh samples of a published field: ``python jobs/evaluate_published.py --help``."""

from bnce_dist.cli.evaluate_published import app

if __name__ == "__main__":
    app()
