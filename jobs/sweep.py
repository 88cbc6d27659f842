"""Try many settings of a job: ``python jobs/sweep.py --help``."""

from bnce_dist.cli.sweep import app

if __name__ == "__main__":
    app()
