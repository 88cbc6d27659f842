"""Where files are, in the forms in which people write it."""

import os
import re
from pathlib import Path
from urllib.parse import unquote

from bnce_dist.core.errors import InputError

# A ``Path`` has lost one of the two slashes already. One letter is a drive.
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/")
_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))(?=/|$)")
_THIS_MACHINE = ("", "localhost", "127.0.0.1")


def local_path(place: str | Path) -> Path:
    """Return the path that a place on this machine's file systems is at.

    ``~``, ``~user`` and a variable of the environment at the beginning (``$HOME/x``, which no shell
    expands in a YAML file) are expanded, ``file:///x`` is understood.

    Args:
        place: What somebody wrote: a path, or an address.

    Raises: InputError: nothing was written, there is no such user or variable, or it is an address
        of something else than a file system (``s3://...``).
    """
    text = os.fspath(place)
    if not text.strip() or "\0" in text:
        raise _refused(text, "none" if not text.strip() else "a character that no path has")
    if (variable := _VARIABLE.match(text)) is not None:
        name = variable[1] or variable[2]
        if not os.environ.get(name):
            raise _refused(text, f"the variable {name}, which is not set")
        text = os.environ[name] + text[variable.end() :]
    scheme = _SCHEME.match(text)
    if scheme is not None and scheme[1].lower() == "file":
        return _path_of_file_address(text)
    if scheme is not None:
        raise _refused(text, f"an address that begins with {scheme[1]}:")
    try:
        # Not by ``Path``, for which ``./~x`` is ``~x``.
        return Path(text).expanduser() if text.startswith("~") else Path(text)
    except RuntimeError as error:
        raise _refused(text, "the home of an unknown user") from error


def _path_of_file_address(text: str) -> Path:
    rest = text.partition(":")[2]
    if not rest.startswith("//"):
        return Path(unquote(rest))
    host, slash, path = rest[2:].partition("/")
    if host.lower() not in _THIS_MACHINE:
        raise _refused(text, f"a file on the machine {host}")
    return Path(unquote(slash + path) or "/")


def _refused(text: str, got: str) -> InputError:
    return InputError(
        f"place {text!r}",
        expected="a path that this machine sees (also ~/x or file:///x)",
        got=got,
        remedy="name a folder on a file system, shared by all nodes if there are several; "
        "copy to or from object stores with their own tools",
    )


def is_folder(path: Path) -> bool:
    """Return whether a folder is there; where the system does not let us look, it is not."""
    try:
        return path.is_dir()
    except OSError:
        return False
