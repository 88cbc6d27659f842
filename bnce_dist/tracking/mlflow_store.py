"""How MLflow stores are spoken to, and what is said of one that does not answer."""

import contextlib
import glob
import os
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from bnce_dist.core.errors import InputError
from bnce_dist.core.places import local_path
from bnce_dist.data.atomic import atomic_path
from bnce_dist.data.lock import Taken, only_process
from bnce_dist.tracking.moved_store import follow_moved_store

# One short attempt per request (MLflow's own defaults retry for minutes): what fails stays in
# the journal anyway. No lines printed into progress bars. A user's setting wins.
MLFLOW_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "6",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


# To make the tables of a new SQLite store, beside others who want to.
CREATION_SECONDS = 300.0

_SQLITE = re.compile(r"sqlite(\+\w+)?:///(?!$)", re.IGNORECASE)
_NO_STORE = re.compile(r"(s3|gs|gcs|abfss?|wasbs?|hdfs|ftp)://|sqlite", re.IGNORECASE)
_HTTP = re.compile(r"https?://", re.IGNORECASE)
_QUERY = re.compile(r"\w+=[^/]*(&\w+=[^/]*)*")


def sqlite_address(path: Path) -> str:
    """Return the address of a SQLite store in a file."""
    # What else is special in addresses, SQLAlchemy takes as it is.
    escaped = os.fspath(path).replace("%", "%25").replace("?", "%3F")
    return f"sqlite:///{escaped}"


def sqlite_path(address: str) -> Path | None:
    """Return the file of a canonical SQLite address; nothing for other stores."""
    match = _SQLITE.match(address)
    return Path(unquote(address[match.end() :].partition("?")[0])) if match else None


def canonical(address: str) -> str:
    """Return the address of a store in the one form that means the same everywhere.

    Spaces around it and slashes behind it are dropped. Paths of SQLite files become absolute,
    with ``~`` expanded; characters that are special in addresses may stand in them as they are.

    Args:
        address: As people write it.

    Raises: InputError: it cannot be that of a store.
    """
    text = address.strip().strip("'\"")
    if _HTTP.match(text):
        return _canonical_server(text)
    match = _SQLITE.match(text)
    if match is not None:
        path, question_mark, query = _split_query(text[match.end() :])
        # MLflow knows no other driver of SQLite.
        return sqlite_address(_sqlite_file(path)) + question_mark + query
    if ":" not in text and Path(text).suffix.lower() in (".db", ".sqlite", ".sqlite3"):
        return sqlite_address(local_path(text).absolute())
    if re.fullmatch(r"[\w.-]+:\d+/?", text):
        raise _not_a_store(text, "an address without http://", f"write http://{text}")
    if _NO_STORE.match(text):
        raise _not_a_store(text, "something else", "correct the address")
    return text


def _canonical_server(text: str) -> str:
    try:
        parts = urlsplit(text)
        usable = bool(parts.hostname) and parts.port != 0 and not re.search(r"\s", text)
    except ValueError:
        usable = False
    if not usable:
        raise _not_a_store(text, "no usable host and port", "write http://HOST:PORT")
    return text.rstrip("/")


def _split_query(rest: str) -> tuple[str, str, str]:
    """Divide the settings of a connection from the path, which may hold a question mark."""
    path, question_mark, query = rest.rpartition("?")
    return (path, question_mark, query) if _QUERY.fullmatch(query) and path else (rest, "", "")


def _sqlite_file(written: str) -> Path:
    literal, decoded = local_path(written), local_path(unquote(written))
    is_literal = literal.parent.is_dir() and not decoded.parent.is_dir()
    return (literal if is_literal else decoded).absolute()


def _not_a_store(text: str, got: str, remedy: str) -> InputError:
    return InputError(
        f"MLflow tracking store {without_credentials(text)}",
        expected="sqlite:////path/mlflow.db, http://HOST:PORT, or a database MLflow knows",
        got=got,
        remedy=remedy,
    )


def open_store(address: str) -> MlflowClient:
    """Return a client of a store; a SQLite store that is new is made by one process at a time.

    Args:
        address: As from `canonical`.

    Raises: InputError: the store does not answer, or there is no driver for it.
    """
    for name, value in MLFLOW_SETTINGS.items():
        os.environ.setdefault(name, value)
    path = sqlite_path(address)
    try:
        if path is None:
            return MlflowClient(address)
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as alone:
            # Several would make the same tables. A store that cannot be written is there already.
            with contextlib.suppress(InputError):
                alone.enter_context(only_process(_lock_of(path), CREATION_SECONDS))
            follow_moved_store(path)
            if not path.exists():
                _make(path)
            client = MlflowClient(address)
    except Taken as error:
        raise unreachable(address, TimeoutError(f"{error.owner} is making it")) from None
    except Exception as error:  # Of a driver that is not installed, of a network...
        raise unreachable(address, error) from error
    # MLflow makes the folder that it reads in an address that is still escaped.
    escaped = Path(address.partition(":///")[2].partition("?")[0]).parent
    if escaped != path.parent:
        with contextlib.suppress(OSError):
            os.removedirs(escaped)
    return client


def _make(path: Path) -> None:
    """Make a SQLite store, whole or not at all.

    MLflow goes through hundreds of statements, and cannot open a store whose maker was killed among
    them.
    """
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*.part*"):
        leftover.unlink()  # of such a maker, perhaps with SQLite's journal
    with atomic_path(path) as temporary:
        MlflowClient(sqlite_address(temporary))


def _lock_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.lock")


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
    return re.sub(r"(?<=://)[^/]*@", "", uri, count=1)


def reason_of(error: BaseException) -> str:
    """Return what went wrong in a few words."""
    # MLflow wraps what went wrong on the wire into several layers of its own words.
    if not isinstance(error, MlflowException) or error.error_code != "INTERNAL_ERROR":
        return str(error)[:200]
    while error.__context__ is not None:
        error = error.__context__
    return f"{type(error).__name__}: {str(error)[:200]}"
