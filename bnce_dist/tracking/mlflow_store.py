"""How MLflow stores are spoken to, and what is said of one that does not answer."""

import logging
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from mlflow.exceptions import MlflowException

from bnce_dist.core.errors import InputError

logger = logging.getLogger(__name__)

ARTIFACTS = "mlflow_artifacts"
"""The folder beside a local store that holds its files."""
# Where MLflow's tables keep whole addresses of files.
_ADDRESSES = {
    "experiments": ("artifact_location",),
    "runs": ("artifact_uri",),
    "logged_models": ("artifact_location",),
    "model_versions": ("source", "storage_location"),
}

# One short attempt per request (MLflow's own defaults retry for minutes): what fails stays in
# the journal anyway. No lines printed into progress bars. A user's setting wins.
MLFLOW_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "6",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


def use_short_attempts() -> None:
    """Keep MLflow from trying for minutes, unless the user wants that."""
    for name, value in MLFLOW_SETTINGS.items():
        os.environ.setdefault(name, value)


def unreachable(tracking_uri: str, error: Exception) -> InputError:
    """Return the error of a store that does not answer."""
    return InputError(
        f"MLflow tracking store {without_credentials(tracking_uri)}",
        expected="a store that answers",
        got=reason_of(error),
        remedy="start it (mlflow/serve.sh), unset MLFLOW_TRACKING_URI for a local file,"
        " or choose another tracking backend",
    )


def without_credentials(uri: str) -> str:
    """Return an address without user and password."""
    parts = urlsplit(uri)
    if not parts.username and not parts.password:
        return uri
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def reason_of(error: BaseException) -> str:
    """Return what went wrong in a few words."""
    # MLflow wraps what went wrong on the wire into several layers of its own words.
    if not isinstance(error, MlflowException) or error.error_code != "INTERNAL_ERROR":
        return str(error)[:200]
    while error.__context__ is not None:
        error = error.__context__
    return f"{type(error).__name__}: {str(error)[:200]}"


def follow_moved_store(tracking_uri: str) -> None:
    """Lead the addresses in a local store to its files after the folder of both was moved.

    MLflow notes whole addresses: after ``mv runs elsewhere`` all models would be lost, and the next
    run would write its files where the folder was. Nothing happens while files are still there.

    Args:
        tracking_uri: Address of the store; any but SQLite's is left alone.
    """
    if not tracking_uri.startswith("sqlite:///"):
        return
    path = Path(tracking_uri.removeprefix("sqlite:///")).absolute()
    artifacts = path.parent / ARTIFACTS
    if not (path.is_file() and artifacts.is_dir()):
        return
    try:
        with closing(sqlite3.connect(path)) as database, database:
            for old in _former_places(database, artifacts):
                num_changed = _readdress(database, old, artifacts.as_uri())
                logger.warning(
                    "the store moved: %d addresses lead to %s now", num_changed, artifacts
                )
    except sqlite3.Error as error:  # Locked, or of another version: as without this.
        logger.warning("addresses of files in %s stay as they are: %s", path, error)


def _former_places(database: sqlite3.Connection, artifacts: Path) -> list[str]:
    """Return addresses of the artifacts' folder where there is none any more."""
    known = database.execute("SELECT DISTINCT artifact_location FROM experiments").fetchall()
    ours = [place for (place,) in known if (place or "").endswith(f"/{ARTIFACTS}")]
    return [
        place
        for place in ours
        if place.startswith("file://")
        and place != artifacts.as_uri()
        and not Path(url2pathname(urlsplit(place).path)).exists()
    ]


def _readdress(database: sqlite3.Connection, old: str, new: str) -> int:
    num_changed = 0
    for table, columns in _ADDRESSES.items():
        there = {row[1] for row in database.execute(f"PRAGMA table_info({table})")}
        for column in there.intersection(columns):
            num_changed += database.execute(
                f"UPDATE {table} SET {column} = ? || substr({column}, ?) "
                f"WHERE {column} = ? OR substr({column}, 1, ?) = ?",
                (new, len(old) + 1, old, len(old) + 1, f"{old}/"),
            ).rowcount
    return num_changed
