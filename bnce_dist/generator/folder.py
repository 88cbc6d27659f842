"""The folder of one run: is it usable, whose is it, and is somebody working in it."""

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bnce_dist.config.load import dotted_values, load_config, to_yaml
from bnce_dist.config.section import Section
from bnce_dist.core.errors import InputError
from bnce_dist.data.atomic import atomic_path, remove_torn
from bnce_dist.data.lock import Taken, only_process

# They change how a run is executed and recorded, not what comes out.
FREE_SECTIONS = ("cluster", "tracking")


@dataclass(frozen=True)
class RunFolder:
    """``<output>/<name>``, with one folder per stage and the configuration of the run.

    Args:
        path: The folder.
    """

    path: Path

    @property
    def config_path(self) -> Path:
        """The resolved configuration of the run."""
        return self.path / "config.yaml"

    @property
    def superseded(self) -> Path:
        """Where finished work of another configuration is kept."""
        return self.path / "superseded"

    def stage(self, name: str) -> Path:
        """Return the folder of a stage."""
        return self.path / name

    def require_space(self, num_bytes: int) -> None:
        """Create the folder and check that it can take the run.

        Args:
            num_bytes: Size of the finished run; what is there already counts.

        Raises: InputError: not writable, or too little free space.
        """
        with atomic_path(self.path / ".writable"):
            pass
        (self.path / ".writable").unlink()
        num_bytes = max(num_bytes - self._written_bytes(), 0)
        free = shutil.disk_usage(self.path).free
        if free < num_bytes:
            raise InputError(
                f"output folder {self.path}",
                expected=f"{num_bytes / 1e6:.0f} MB of free space",
                got=f"{free / 1e6:.0f} MB",
                remedy="free space or choose another --output",
            )

    def _written_bytes(self) -> int:
        files = (path for path in self.path.rglob("*") if path.is_file())
        return sum(
            path.stat().st_size for path in files if not path.is_relative_to(self.superseded)
        )

    def require_same_run(
        self,
        config: Section,
        remedy: str = "choose another --name, or give --resume to redo only the stages affected",
    ) -> None:
        """Check that the folder is new or holds a run with this configuration.

        Args:
            config: Of the run.
            remedy: What the user can do if it holds another one.

        Raises: InputError: it holds another run.
        """
        if not self.config_path.exists():
            return
        old = dotted_values(load_config(type(config), self.config_path))
        new = dotted_values(config)
        changed = [
            f"{key}={old[key]}"
            for key in new
            if new[key] != old[key] and key.partition(".")[0] not in FREE_SECTIONS
        ]
        if changed:
            raise InputError(
                f"run folder {self.path}",
                expected="a new folder or a run with the same configuration",
                got=f"a run with {', '.join(changed)}",
                remedy=remedy,
            )

    def write_config(self, config: Section) -> None:
        """Record the configuration as the run's."""
        with atomic_path(self.config_path) as temporary:
            temporary.write_text(to_yaml(config))

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes out of the folder during the block.

        What a process that was killed here left half-written is removed.

        Raises: InputError: another process is working in it.
        """
        with contextlib.ExitStack() as held:
            try:
                held.enter_context(only_process(self.path / ".lock"))
            except Taken as error:
                raise InputError(
                    f"run folder {self.path}",
                    expected="one process at a time",
                    got=f"another one at work in it, {error.owner}",
                    remedy="wait for it, end it, or choose another --name",
                ) from None
            remove_torn(self.path)
            yield
