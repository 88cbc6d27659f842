"""Sample a pretrained velocity field: ``python jobs/sample_pretrained.py --help``."""

from bnce_dist.cli.sample_pretrained import app

if __name__ == "__main__":
    app()
