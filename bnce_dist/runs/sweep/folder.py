"""The folder of a sweep: whose it is, its trials, and what came out."""

from dataclasses import dataclass
from pathlib import Path

from bnce_dist.config.load import load_config, to_yaml
from bnce_dist.core.errors import InputError
from bnce_dist.data.atomic import atomic_path
from bnce_dist.runs.sweep.config import SweepConfig, dotted
from bnce_dist.runs.sweep.trial import Trial, TrialResult

# They change how a sweep is executed, and how far it goes.
_FREE = ("num_trials", "max_concurrent", "tracking.", "base.cluster.", "base.tracking.")


@dataclass(frozen=True)
class SweepFolder:
    """``<output>/<name>``: ``sweep.yaml``, ``trials/<number>``, and ``shared`` by all trials.

    Args:
        path: The folder.
    """

    path: Path

    @property
    def config_path(self) -> Path:
        """The resolved configuration of the sweep."""
        earlier = self.path / "study.yaml"  # what version 0.1 called it
        return earlier if earlier.exists() else self.path / "sweep.yaml"

    @property
    def shared(self) -> Path:
        """What is computed once for all trials."""
        return self.path / "shared"

    @property
    def trials(self) -> list[Trial]:
        """The trials begun so far, by number."""
        return [Trial(state.parent) for state in sorted(self.path.glob("trials/*/trial.json"))]

    @property
    def results(self) -> list[TrialResult]:
        """Those of the trials that ended, by number."""
        return [result for trial in self.trials if (result := trial.result) is not None]

    def trial(self, number: int) -> Trial:
        """Return a trial, begun or not."""
        return Trial(self.path / "trials" / f"{number:04d}")

    def require_same_sweep(self, sweep: SweepConfig, *, resume: bool) -> None:
        """Check that the folder is new, or holds this sweep and it is to be resumed.

        Args:
            sweep: Resolved, as `write_config` got it.
            resume: Whether the user asked to continue.

        Raises: InputError: it holds a sweep already, or another one.
        """
        if not self.config_path.exists():
            return
        if not resume:
            raise InputError(
                f"sweep folder {self.path}",
                expected="a new folder",
                got=f"a sweep with {len(self.results)} of {sweep.num_trials} trials ended",
                remedy="give --resume to continue it, or choose another --name",
            )
        old = _decisive(load_config(SweepConfig, self.config_path))
        new = _decisive(sweep)
        keys = sorted(old.keys() | new.keys())
        changed = [f"{key}={old.get(key)}" for key in keys if old.get(key) != new.get(key)]
        if changed:
            raise InputError(
                f"sweep folder {self.path}",
                expected="the sweep it was begun with",
                got=f"a sweep that there has {', '.join(changed)}",
                remedy="go back to these settings, or choose another --name for a new sweep",
            )

    def write_config(self, sweep: SweepConfig) -> None:
        """Record the configuration as the sweep's."""
        with atomic_path(self.config_path) as temporary:
            temporary.write_text(to_yaml(sweep))


def _decisive(sweep: SweepConfig) -> dict[str, object]:
    """Return the settings that a sweep keeps for good."""
    settings = dotted(sweep.model_dump(mode="json"))
    return {key: value for key, value in settings.items() if not key.startswith(_FREE)}
