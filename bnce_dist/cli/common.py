"""What the command lines have in common: errors as one line, signals, logs."""

import contextlib
import logging
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn

import typer

from bnce_dist.core.allocator import keep_freed_memory
from bnce_dist.core.errors import InputError
from bnce_dist.core.places import local_path
from bnce_dist.data.atomic import require_new_files

FAILED, USER_ERROR, UNRELIABLE, INTERRUPTED = 1, 2, 3, 130
"""Exit codes; 0 is success."""
# Ray sets it for the command of `ray job submit`.
IN_RAY_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace files of --output that are there already.")
]


@contextlib.contextmanager
def errors_as_one_line(go_on: str = "the same command") -> Iterator[None]:
    """End the program with one line and the right exit code when the user errs or interrupts.

    Args:
        go_on: What continues an interrupted run.
    """
    try:
        yield
    except InputError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(USER_ERROR) from None
    except KeyboardInterrupt:
        typer.echo(f"interrupted; {go_on} continues the run", err=True)
        raise typer.Exit(INTERRUPTED) from None


def place(text: str | Path) -> Path:
    """Return the path that an option or argument names; every one that names a path is read so."""
    with errors_as_one_line():
        return local_path(text)


def require_new_output(stem: Path | None, *suffixes: str, overwrite: bool) -> None:
    """Refuse to replace files that the user names; those that a run keeps are made anew.

    Args:
        stem: The files without their endings; absent where they are kept in the run.
        suffixes: Their endings.
        overwrite: Whether files that exist are to be replaced.

    Raises: InputError: one exists and is not to be replaced.
    """
    if stem is not None:
        files = [stem.with_name(stem.name + suffix) for suffix in suffixes]
        require_new_files(files, overwrite=overwrite)


def begin_work() -> None:
    """Let SIGTERM interrupt like Ctrl-C; show what this package logs, and nobody else's chatter."""
    keep_freed_memory()
    signal.signal(signal.SIGTERM, _interrupt)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
    logger = logging.getLogger("bnce_dist")
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)


def run_path(output: Path, name: str) -> Path:
    """Return the absolute folder of a run.

    Raises: InputError: the name is not that of a folder, or the folder would not last.
    """
    if not name or Path(name).name != name:
        raise InputError(
            "--name", expected="a plain folder name", got=repr(name), remedy="put paths in --output"
        )
    return absolute_output(output) / name


def absolute_output(output: Path) -> Path:
    """Return the folder of the runs as every worker can name it, whatever its own directory.

    Raises: InputError: a relative path in a Ray job, which works in a copy that Ray deletes.
    """
    if IN_RAY_JOB in os.environ and not output.is_absolute():
        raise InputError(
            "--output in a Ray job",
            expected="an absolute path",
            got=output,
            remedy="name a folder that every node sees, e.g. --output /shared/runs",
        )
    return output.absolute()


def _interrupt(signum: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def require_printable(dry_run: bool, as_json: bool) -> None:
    """Refuse to print the result of a run that is not started.

    Raises: InputError: both were asked for.
    """
    if dry_run and as_json:
        raise InputError(
            "--json with --dry-run",
            expected="a result to print",
            got="a run that starts nothing",
            remedy="leave one of them out; a dry run prints YAML",
        )
