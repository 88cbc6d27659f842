"""Reweight samples of a pretrained field: ``python jobs/evaluate_pretrained.py --help``."""

from bnce_dist.cli.evaluate_pretrained import app

if __name__ == "__main__":
    app()
