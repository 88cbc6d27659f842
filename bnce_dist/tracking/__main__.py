"""Send to MLflow what a run could not: ``python -m bnce_dist.tracking RUN_FOLDER``."""

import argparse
import sys

from bnce_dist.core.errors import InputError
from bnce_dist.tracking.mlflow_tracker import flush


def main() -> int:
    """Flush one run folder and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bnce_dist.tracking", description=__doc__)
    parser.add_argument("run_folder", help="folder of a tracked run, e.g. runs/adp")
    try:
        sent = flush(parser.parse_args().run_folder)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{sent} records sent")
    return 0


if __name__ == "__main__":
    sys.exit(main())
