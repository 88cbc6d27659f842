"""Run the pipeline: ``python jobs/train.py --help``."""

from bnce_dist.cli.train import app

if __name__ == "__main__":
    app()
