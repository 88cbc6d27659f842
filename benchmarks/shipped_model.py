"""The model that comes with the package: free energy, weights and speed, over seeds.

python benchmarks/shipped_model.py --write
"""

import argparse
import time

from record import publish

from bnce_dist.cli.evaluate import evaluation_record
from bnce_dist.generator.shipped import FOLDER, load_shipped

SEQUENCE, NUM_SAMPLES, SEEDS = "ACE-ALA-NME", 10_000, (0, 1, 2)


def main() -> None:
    """Evaluate the model with every seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="replace the committed record")
    arguments = parser.parse_args()
    generator = load_shipped(SEQUENCE)
    started = time.process_time()
    runs = [evaluation_record(generator, NUM_SAMPLES, seed) for seed in SEEDS]
    cpu_seconds = time.process_time() - started
    numbers = {
        "file_kb": (FOLDER / f"{SEQUENCE.lower()}.pt").stat().st_size / 1e3,
        "num_samples": NUM_SAMPLES,
        "cpu_seconds_per_1000_samples": cpu_seconds / len(SEEDS) / NUM_SAMPLES * 1000,
        "runs": runs,
        "training_run": dict(generator.metrics),
    }
    publish("shipped_model", numbers, ["bnce_dist", "torch", "openmm"], write=arguments.write)


if __name__ == "__main__":
    main()
