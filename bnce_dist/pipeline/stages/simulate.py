"""Simulate: the in-run reference, and the data the emulator learns from."""

from bnce_dist.pipeline.stages.context import StageContext
from bnce_dist.pipeline.stages.dataset import run_dataset
from bnce_dist.pipeline.stages.reference import run_reference


def run(context: StageContext) -> None:
    """Leave ``reference`` and the data set ``dataset``."""
    run_reference(context)
    run_dataset(context)
