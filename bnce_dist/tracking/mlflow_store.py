"""How MLflow stores are spoken to, and what is said of one that does not answer."""

import os
from urllib.parse import urlsplit

from mlflow.exceptions import MlflowException

from bnce_dist.core.errors import InputError

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
