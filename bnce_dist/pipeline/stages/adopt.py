"""Take over what a stage of another run left."""

import shutil

from bnce_dist.pipeline.stages.context import StageContext


def adopt(context: StageContext, *, name: str) -> None:
    """Leave a copy of what a stage left that is given as the input ``name``."""
    shutil.copytree(
        context.inputs[name],
        context.folder,
        dirs_exist_ok=True,
        ignore=shutil.ignore_patterns("artifact.json"),
    )
