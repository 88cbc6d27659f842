"""The folder of a study: whose it is, its trials, and what came out."""

from dataclasses import dataclass
from pathlib import Path

from bnce_dist.core.errors import InputError
from bnce_dist.data.atomic import atomic_path
from bnce_dist.pipeline.overrides import load_config, to_yaml
from bnce_dist.pipeline.study.config import StudyConfig, dotted
from bnce_dist.pipeline.study.trial import Trial, TrialResult

# They change how a study is executed, and how far it goes.
_FREE = ("num_trials", "max_concurrent", "tracking.", "base.cluster.", "base.tracking.")


@dataclass(frozen=True)
class StudyFolder:
    """``<output>/<name>``: ``study.yaml``, ``trials/<number>``, and ``shared`` by all trials.

    Args:
        path: The folder.
    """

    path: Path

    @property
    def config_path(self) -> Path:
        """The resolved configuration of the study."""
        return self.path / "study.yaml"

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

    def require_same_study(self, study: StudyConfig, *, resume: bool) -> None:
        """Check that the folder is new, or holds this study and it is to be resumed.

        Args:
            study: Resolved, as `write_config` got it.
            resume: Whether the user asked to continue.

        Raises: InputError: it holds a study already, or another one.
        """
        if not self.config_path.exists():
            return
        if not resume:
            raise InputError(
                f"study folder {self.path}",
                expected="a new folder",
                got=f"a study with {len(self.results)} of {study.num_trials} trials ended",
                remedy="give --resume to continue it, or choose another --name",
            )
        old = _decisive(load_config(self.config_path, schema=StudyConfig))
        new = _decisive(study)
        keys = sorted(old.keys() | new.keys())
        changed = [f"{key}={old.get(key)}" for key in keys if old.get(key) != new.get(key)]
        if changed:
            raise InputError(
                f"study folder {self.path}",
                expected="the study it was begun with",
                got=f"a study that there has {', '.join(changed)}",
                remedy="go back to these settings, or choose another --name for a new study",
            )

    def write_config(self, study: StudyConfig) -> None:
        """Record the configuration as the study's."""
        with atomic_path(self.config_path) as temporary:
            temporary.write_text(to_yaml(study))


def _decisive(study: StudyConfig) -> dict[str, object]:
    """Return the settings that a study keeps for good."""
    settings = dotted(study.model_dump(mode="json"))
    return {key: value for key, value in settings.items() if not key.startswith(_FREE)}
