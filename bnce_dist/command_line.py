"""What the command lines have in common: errors as one line, signals, logs, executors."""

import contextlib
import logging
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Literal, NoReturn

import typer

from bnce_dist.core.errors import InputError
from bnce_dist.pipeline.executor import Executor, LocalExecutor

USER_ERROR, INTERRUPTED = 2, 130


@contextlib.contextmanager
def errors_as_one_line() -> Iterator[None]:
    """End the program with one line and the right exit code when the user errs or interrupts."""
    try:
        yield
    except InputError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(USER_ERROR) from None
    except KeyboardInterrupt:
        typer.echo("interrupted; the same command continues the run", err=True)
        raise typer.Exit(INTERRUPTED) from None


def begin_work() -> None:
    """Let SIGTERM interrupt like Ctrl-C; show what this package logs, and nobody else's chatter."""
    signal.signal(signal.SIGTERM, _interrupt)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
    logger = logging.getLogger("bnce_dist")
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)


def create_executor(kind: Literal["ray", "local"], num_workers: int | None) -> Executor:
    """Return the executor of a configuration's ``cluster`` section.

    Raises: InputError: the cluster cannot be reached or is too small.
    """
    if kind == "local":
        return LocalExecutor()
    # Ray takes seconds to import, which neither --help nor an error should wait for.
    from bnce_dist.distributed.executor import RayExecutor

    return RayExecutor(num_workers)


def run_path(output: Path, name: str) -> Path:
    """Return the absolute folder of a run; workers have other working directories.

    Raises: InputError: the name is not that of a folder.
    """
    if not name or Path(name).name != name:
        raise InputError(
            "--name", expected="a plain folder name", got=repr(name), remedy="put paths in --output"
        )
    return (output / name).absolute()


def _interrupt(signum: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt
