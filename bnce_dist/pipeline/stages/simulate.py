"""Simulate: the in-run reference, and the data the emulator learns from."""

from bnce_dist.pipeline.stages.context import StageContext
from bnce_dist.pipeline.stages.dataset import run_dataset
from bnce_dist.pipeline.stages.reference import run_reference
from bnce_dist.pipeline.stages.trajectory import check_trajectories


def run(context: StageContext) -> None:
    """Leave ``reference`` and the data set ``dataset``."""
    check_trajectories(context.config, context.target)
    context.config.dataset.require_both_sides()
    run_reference(context)
    run_dataset(context)
