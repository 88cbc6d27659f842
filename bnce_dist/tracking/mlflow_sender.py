"""Replay a journal into an MLflow store, exactly once."""

import logging
import threading
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from bnce_dist.data.atomic import read_json, write_json
from bnce_dist.tracking.journal import Journal
from bnce_dist.tracking.models import predecessor, register
from bnce_dist.tracking.tracker import Quality

logger = logging.getLogger(__name__)

# Marks a run in the store, so that one whose creation was not acknowledged is found again.
RUN_TAG = "bnce_dist.run"
# Per request. The store takes 100 parameters and 1000 metrics, but a repeated batch of those
# keeps a busy server longer than our timeout.
MAX_PARAMS = 100
MAX_METRICS = 200
# Codes with which a store refuses a record for good; everything else may pass later.
REFUSALS = frozenset({"INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST"})


@dataclass
class SendState:
    """How far the journal has been sent, and where to."""

    tracking_uri: str
    experiment: str
    position: int = 0
    run_ids: dict[str, str] = field(default_factory=dict)


class MlflowSender:
    """Send the records of a journal in order and remember the position after each request.

    A request whose answer got lost is repeated, which changes nothing: runs are found by tag,
    the store ignores a metric it holds with the same step, time and value, and parameters and
    files overwrite themselves.

    Args:
        journal: What to send.
        state_path: Where the position is kept. A position in another store, or in a journal
            that was removed since, is not used.
        client: The store.
        state: The store's name and experiment, at position 0.
        experiment_id: The experiment's id in the store.

    Attributes:
        registering: Held while the folder of a model is sent; who writes one takes it.
    """

    def __init__(
        self,
        journal: Journal,
        state_path: Path,
        client: MlflowClient,
        state: SendState,
        experiment_id: str,
    ) -> None:
        self._journal = journal
        self._state_path = state_path
        self._client = client
        self._experiment_id = experiment_id
        self._state = state
        self.registering = threading.Lock()
        kept = read_state(state_path)
        if kept is not None and kept.position <= journal.size:
            same_store = kept.tracking_uri == state.tracking_uri
            if same_store and kept.experiment == state.experiment:
                self._state = kept

    @property
    def unsent(self) -> int:
        """Records after the position."""
        return sum(1 for _ in self._journal.read(self._state.position))

    def predecessor(self, name: str, run: str) -> Quality | None:
        """Return the quality of the last model of a name registered before that of a run."""
        return predecessor(self._client, name, self._state.run_ids.get(run))

    def send(self) -> None:
        """Send everything after the position.

        Raises: Exception: the store cannot be reached; the rest stays for the next call.
        """
        for position, records in self._batches():
            try:
                self._apply(records)
            except MlflowException as error:
                if records[0]["event"] == "start" or error.error_code not in REFUSALS:
                    raise
                logger.warning("MLflow refused %d record(s), skipped: %s", len(records), error)
            self._state.position = position
            write_json(self._state_path, asdict(self._state))

    def _batches(self) -> Iterator[tuple[int, list[dict[str, Any]]]]:
        batch: list[dict[str, Any]] = []
        position = self._state.position
        for after, record in self._journal.read(position):
            if batch and not _fits(batch, record):
                yield position, batch
                batch = []
            batch.append(record)
            position = after
        if batch:
            yield position, batch

    def _apply(self, records: list[dict[str, Any]]) -> None:
        first = records[0]
        if first["event"] == "start":
            self._start(first)
            return
        run_id = self._state.run_ids[first["run"]]
        if first["event"] == "metrics":
            metrics = [metric for record in records for metric in _metrics(record)]
            self._client.log_batch(run_id, metrics=metrics)
        elif first["event"] == "tags":
            tags = [RunTag(name, value) for name, value in first["tags"].items()]
            self._client.log_batch(run_id, tags=tags)
        elif first["event"] == "artifact":
            self._upload(run_id, first)
        elif first["event"] == "model":
            with self.registering:
                self._register(run_id, first)
        else:
            self._client.set_terminated(run_id, first["status"], first["time_ms"])

    def _start(self, record: Mapping[str, Any]) -> None:
        run = record["run"]
        if run in self._state.run_ids:
            self._client.update_run(self._state.run_ids[run], status="RUNNING")
            return
        run_id = self._find(run) or self._create(record)
        params = [Param(name, value) for name, value in record["params"].items()]
        for first in range(0, len(params), MAX_PARAMS):
            self._client.log_batch(run_id, params=params[first : first + MAX_PARAMS])
        self._state.run_ids[run] = run_id

    def _find(self, run: str) -> str | None:
        found = self._client.search_runs([self._experiment_id], f"tags.`{RUN_TAG}` = '{run}'")
        return found[0].info.run_id if found else None

    def _create(self, record: Mapping[str, Any]) -> str:
        tags = {**record["tags"], RUN_TAG: record["run"]}
        if record["parent"] is not None:
            tags["mlflow.parentRunId"] = self._state.run_ids[record["parent"]]
        created = self._client.create_run(
            self._experiment_id, start_time=record["time_ms"], tags=tags, run_name=record["name"]
        )
        return created.info.run_id

    def _upload(self, run_id: str, record: Mapping[str, Any]) -> None:
        path = self._journal.path.parent / record["path"]
        if path.is_file():
            self._client.log_artifact(run_id, path, record["folder"] or None)
        else:
            logger.warning("%s is gone and was not sent to MLflow", path)

    def _register(self, run_id: str, record: Mapping[str, Any]) -> None:
        path = self._journal.path.parent / record["path"]
        if not path.is_dir():
            logger.warning("%s is gone and was not registered", path)
            return
        folder = f"models/{record['name']}"
        self._client.log_artifacts(run_id, path, folder)
        register(self._client, record["name"], run_id, folder, Quality(**record["quality"]))


def read_state(path: Path) -> SendState | None:
    """Return the state kept at ``path``, or None where nothing was ever sent."""
    return SendState(**read_json(path)) if path.exists() else None


def _fits(batch: list[dict[str, Any]], record: Mapping[str, Any]) -> bool:
    size = sum(len(member["values"]) for member in batch if member["event"] == "metrics")
    return (
        batch[0]["event"] == record["event"] == "metrics"
        and batch[0]["run"] == record["run"]
        and size + len(record["values"]) <= MAX_METRICS
    )


def _metrics(record: Mapping[str, Any]) -> list[Metric]:
    return [
        Metric(name, float(value), record["time_ms"], record["step"])
        for name, value in record["values"].items()
    ]
