"""A local MLflow store whose folder was moved finds its files again."""

import logging
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

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


def follow_moved_store(path: Path) -> None:
    """Lead the addresses in a local store to its files after the folder of both was moved.

    MLflow notes whole addresses: after ``mv runs elsewhere`` all models would be lost, and the next
    run would write its files where the folder was. Nothing happens while the store's own files are
    still there.

    Args:
        path: Of the SQLite file.
    """
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
    """Return addresses of the artifacts' folder where this store's files are no more."""
    known = database.execute("SELECT DISTINCT artifact_location FROM experiments").fetchall()
    ours = [place for (place,) in known if (place or "").endswith(f"/{ARTIFACTS}")]
    return [
        place
        for place in ours
        if place.startswith("file://")
        and place != artifacts.as_uri()
        and _left(Path(url2pathname(urlsplit(place).path)), _runs(database, place), artifacts)
    ]


def _runs(database: sqlite3.Connection, place: str) -> list[str]:
    """Return the folders of runs relative to a place."""
    rows = database.execute("SELECT artifact_uri FROM runs").fetchall()
    return [uri[len(place) + 1 :] for (uri,) in rows if (uri or "").startswith(f"{place}/")]


def _left(old: Path, runs: list[str], artifacts: Path) -> bool:
    """Return whether the files of runs are not in the old folder, but in the present one.

    An old folder that is only away, with the disk it is on, has files that are nowhere.
    """
    is_there, is_here = (
        any((f / url2pathname(r)).exists() for r in runs) for f in (old, artifacts)
    )
    return not is_there and (is_here or not (runs or old.exists()))


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
