"""Choose a tracker by name."""

from pathlib import Path
from typing import Literal

from bnce_dist.tracking.tracker import Tracker

Backend = Literal["mlflow", "jsonl", "none"]


def create_tracker(
    backend: Backend,
    run_folder: str | Path,
    *,
    experiment: str = "bnce_dist",
    store: str | None = None,
) -> Tracker:
    """Return the tracker of a pipeline; call it before anything expensive.

    Args:
        backend: ``"mlflow"``, ``"jsonl"`` (a file in the run folder) or ``"none"``.
        run_folder: The pipeline's folder.
        experiment: MLflow experiment.
        store: Address of MLflow's store; by default ``MLFLOW_TRACKING_URI``, else ``mlflow.db``
            beside the run folder.

    Raises: InputError: MLflow's store does not answer.
    """
    if backend != "mlflow":
        return Tracker(run_folder if backend == "jsonl" else None)
    # MLflow takes seconds to import.
    from bnce_dist.tracking.mlflow_tracker import MlflowTracker

    return MlflowTracker(run_folder, experiment=experiment, store=store)
