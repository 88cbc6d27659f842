"""A tracker whose journal is sent to MLflow while the run goes on."""

import logging
import os
import threading
from dataclasses import asdict
from pathlib import Path

from mlflow.entities import Experiment
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from bnce_dist.core.errors import InputError
from bnce_dist.tracking.journal import Journal
from bnce_dist.tracking.mlflow_sender import MlflowSender, SendState, read_state
from bnce_dist.tracking.mlflow_store import (
    canonical,
    open_store,
    reason_of,
    sqlite_address,
    sqlite_path,
    unreachable,
    without_credentials,
)
from bnce_dist.tracking.moved_store import ARTIFACTS
from bnce_dist.tracking.tracker import JOURNAL_NAME, Positions, Quality, Status, Tracker

logger = logging.getLogger(__name__)

STATE_NAME = "tracking_state.json"
SEND_INTERVAL_SECONDS = 2.0
FIRST_PAUSE_SECONDS = 10.0
LONGEST_PAUSE_SECONDS = 120.0
PATIENCE_SECONDS = 5.0


class MlflowTracker(Tracker):
    """Record in the journal first; a background thread sends it to MLflow.

    The store is `store_address`. One that
    goes away costs the run nothing: records wait in the journal until it is back, or until
    `flush`.

    Args:
        run_folder: The pipeline's folder.
        experiment: MLflow experiment; it is created where it does not exist.
        store: Address of the store, if it is decided already.

    Raises: InputError: the store does not answer.
    """

    def __init__(
        self, run_folder: str | Path, *, experiment: str = "bnce_dist", store: str | None = None
    ) -> None:
        super().__init__(run_folder)
        self._sender = connect(self._folder, store_address(self._folder, store), experiment)
        self._finished = threading.Event()
        self._thread = threading.Thread(target=self._send_repeatedly, daemon=True)
        self._thread.start()

    @property
    def unsent(self) -> int:
        """Records the store does not have yet."""
        return self._sender.unsent

    def log_generator(
        self, name: str, path: str | Path, example_nm: Positions, quality: Quality
    ) -> None:
        """Record the generator as two models to be served, and register both."""
        from bnce_dist.tracking.pyfunc import write_served_models

        # A run that is continued may still be sending what it left the last time.
        with self._sender.registering:
            folders = write_served_models(self._folder / "served", Path(path), example_nm)
        for suffix, folder in folders.items():
            self._record(
                "model",
                self._current_run,
                name=name + suffix,
                path=os.fspath(folder.relative_to(self._folder)),
                quality=asdict(quality),
            )

    def predecessor(self, name: str) -> Quality | None:
        """Return the quality of the version before this run's in the registry."""
        try:
            return self._sender.predecessor(name, self._current_run)
        except MlflowException as error:
            logger.warning("no comparison with the run before: %s", reason_of(error))
            return None

    def finish(self, status: Status = "FINISHED") -> None:
        """Close the parent run, and wait for the store as long as it takes records."""
        super().finish(status)
        self._finished.set()
        before = self.unsent + 1
        # A model is one record of hundreds of files.
        while self._thread.is_alive() and (
            self.unsent < before or self._sender.registering.locked()
        ):
            before = self.unsent
            self._thread.join(PATIENCE_SECONDS)
        if self.unsent:
            logger.warning(
                "%d tracking records wait in %s; send them with: python -m bnce_dist.tracking %s",
                self.unsent,
                self._folder / JOURNAL_NAME,
                self._folder,
            )

    def _send_repeatedly(self) -> None:
        pause, finished = 0.0, False
        while not finished:
            finished = self._finished.wait(pause or SEND_INTERVAL_SECONDS)
            try:
                self._sender.send()
                pause = 0.0
            except Exception as error:  # Stores fail in many ways; none of them may end a run.
                if not pause:
                    where = self._folder / JOURNAL_NAME
                    logger.warning(
                        "MLflow is away, records wait in %s: %s", where, reason_of(error)
                    )
                pause = min(2 * pause or FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS)


def flush(run_folder: str | Path) -> int:
    """Send what a run folder's journal still holds.

    It goes to ``MLFLOW_TRACKING_URI``, else to the store the run used, else to ``mlflow.db``
    beside the folder. Repeating it changes nothing.

    Args:
        run_folder: The pipeline's folder.

    Returns: The number of records sent.
    Raises: InputError: there is no journal, or the store does not answer.
    """
    folder = Path(run_folder).absolute()
    if not (folder / JOURNAL_NAME).exists():
        raise InputError(
            f"run folder {folder}",
            expected=f"a folder with {JOURNAL_NAME}",
            got="none",
            remedy="name the folder of a tracked run",
        )
    kept = read_state(folder / STATE_NAME)
    uri = store_address(folder, os.environ.get("MLFLOW_TRACKING_URI") or _known_store(kept, folder))
    sender = connect(folder, uri, kept.experiment if kept else "bnce_dist")
    waiting = sender.unsent
    try:
        sender.send()
    except (MlflowException, OSError) as error:
        raise unreachable(uri, error) from error
    return waiting


def _known_store(kept: SendState | None, folder: Path) -> str | None:
    """Return the store that a run used; none where the folder of both was moved."""
    path = sqlite_path(kept.tracking_uri) if kept else None
    has_moved = path is not None and not path.exists()
    return None if kept is None or has_moved else kept.tracking_uri


def store_address(run_folder: Path, store: str | None = None) -> str:
    """Return the address of the store of a run, the same for processes in other folders.

    Args:
        run_folder: The pipeline's folder.
        store: Its address as the user wrote it; by default ``MLFLOW_TRACKING_URI``, else that of
            ``mlflow.db`` beside the run folder.

    Raises: InputError: it cannot be that of a store.
    """
    written = store or os.environ.get("MLFLOW_TRACKING_URI", "").strip()
    return canonical(written) if written else local_store(run_folder)


def local_store(run_folder: Path) -> str:
    """Return the address of the SQLite store all runs of one output folder share."""
    return sqlite_address(run_folder.parent / "mlflow.db")


def connect(run_folder: Path, tracking_uri: str, experiment: str) -> MlflowSender:
    """Return a sender for a run folder's journal.

    Raises: InputError: the store does not answer within six seconds, or the
        experiment was deleted in it.
    """
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
    client = open_store(tracking_uri)
    try:
        found = client.get_experiment_by_name(experiment)
        if found is None:
            artifacts = _local_artifacts(tracking_uri, run_folder)
            found = _create(client, experiment, artifacts)
    except (MlflowException, OSError) as error:
        raise unreachable(tracking_uri, error) from error
    if found.lifecycle_stage != "active":
        raise InputError(
            f"MLflow experiment {experiment!r}",
            expected="an active experiment",
            got="a deleted one",
            remedy=f"run: mlflow experiments restore -x {found.experiment_id}",
        )
    state = SendState(without_credentials(tracking_uri), experiment)
    journal = Journal(run_folder / JOURNAL_NAME)
    return MlflowSender(journal, run_folder / STATE_NAME, client, state, found.experiment_id)


def _create(client: MlflowClient, experiment: str, artifacts: str | None) -> Experiment:
    """Return an experiment that was not there a moment ago, whoever makes it first."""
    try:
        return client.get_experiment(client.create_experiment(experiment, artifacts))
    except MlflowException as error:
        found = client.get_experiment_by_name(experiment)
        if error.error_code != "RESOURCE_ALREADY_EXISTS" or found is None:
            raise
        return found


def _local_artifacts(tracking_uri: str, run_folder: Path) -> str | None:
    # Left to itself, MLflow puts a local store's files under the working directory, which is
    # another one in every process; a server decides for itself.
    if tracking_uri.startswith("sqlite:"):
        return (run_folder.parent / ARTIFACTS).as_uri()
    return None
