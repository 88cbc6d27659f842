"""A trained pair of models as one object and one file: samples with weights, densities."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from bnce_dist.chem.molecule import Molecule
from bnce_dist.chem.validation import (
    has_native_chirality,
    relabel_hydrogens,
    require_molecules,
)
from bnce_dist.config.load import load_section, with_values
from bnce_dist.core.bennett import Estimate
from bnce_dist.core.device import device_from_name
from bnce_dist.core.errors import InputError, as_input_error
from bnce_dist.core.free_energy import MIN_EXACT
from bnce_dist.core.places import is_folder, local_path
from bnce_dist.core.random import generator
from bnce_dist.data.atomic import read_json
from bnce_dist.data.room import require_memory
from bnce_dist.data.torch_file import halved, write_torch
from bnce_dist.generator.annealing import Annealer, AnnealingConfig, draw_pilot
from bnce_dist.generator.emulator import Emulator
from bnce_dist.generator.ensemble import Ensemble
from bnce_dist.generator.evaluation import evaluate_samples, log_num_images, molecule_log_weights
from bnce_dist.generator.exact_weights import with_exact
from bnce_dist.generator.folder import RunFolder
from bnce_dist.generator.learned_density import LearnedDensity
from bnce_dist.generator.model_file import SCHEMA_VERSION, load_state, unusable
from bnce_dist.generator.samples import FloatArray
from bnce_dist.generator.target import Target, TargetConfig
from bnce_dist.generator.unseen import unseen_part
from bnce_dist.training.progress import Progress

FILE_NAME = "generator.pt"
"""What a finished run calls its own."""
_KIND = "generator"
_OTHER_LEVELS = 0.25
"""Share by which levels may differ for the correction of annealed weights to be theirs."""
BATCH = 1000
"""Samples that are drawn at once, from noise of their own."""
Evaluate = Callable[[Tensor, int], dict[str, Tensor]]
"""From model-space samples and their batch's index to what `evaluate_samples` returns."""


@dataclass(frozen=True, repr=False)
class BoltzmannGenerator:
    """Draws molecules from an emulator and weights them to their Boltzmann distribution.

    Args:
        target_config: The distribution, as in the configuration of a run.
        target: Built from it.
        emulator: Draws the samples.
        density: Gives their log density in one pass.
        metrics: Content of the run's ``metrics.json``; empty for a run that was not evaluated.
    """

    target_config: TargetConfig
    target: Target
    emulator: Emulator
    density: LearnedDensity
    metrics: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.molecule.name})"

    @property
    def molecule(self) -> Molecule:
        """The molecule."""
        return self.target.molecule

    @property
    def device(self) -> torch.device:
        """Where everything is computed; what comes back is on the CPU."""
        return self.emulator.device

    def to(self, device: str | torch.device) -> "BoltzmannGenerator":
        """Return this on another device: ``cpu``, ``cuda`` or ``cuda:N``.

        Raises: InputError: no such device.
        """
        place = device_from_name(device)
        return replace(
            self,
            target=self.target.to(place),
            emulator=self.emulator.to(place),
            density=self.density.to(place),
        )

    @property
    def annealing(self) -> AnnealingConfig:
        """How the run annealed; the default where it did not, or did not say."""
        return with_values(AnnealingConfig(), self.metrics.get("annealing_settings", {}))

    def correction(self, *, annealed: bool = False) -> Estimate | None:
        """Return what the learned density's ``delta_f`` lacks, as the run measured it, if it did.

        Args:
            annealed: Whether of annealed weights; a run that did not anneal does not know those.
        """
        run_annealed = "annealing_num_levels" in self.metrics
        if annealed and not run_annealed:
            return None
        which = "one_step_" if run_annealed and not annealed else ""
        value, stderr = (self.metrics.get(f"correction_{which}{x}kT") for x in ("", "stderr_"))
        return None if value is None or stderr is None else Estimate(value, stderr)

    def sample(
        self,
        num_samples: int,
        seed: int = 0,
        *,
        num_exact: int = 0,
        annealing: AnnealingConfig | None = None,
        target: Target | None = None,
        progress: bool = True,
    ) -> Ensemble:
        """Draw weighted conformations.

        Args:
            num_samples: How many. The first ones do not depend on it, but for rounding; annealed
                ones only in whole batches of ``BATCH``.
            seed: Of the noise.
            num_exact: How many of them get an exact density as well, which is slow: half are the
                first, the others drawn by their weights on each side of the state.
            annealing: How to anneal them from the learned density to the target; by default they
                are weighted in one step.
            target: What to weight them to, if not the distribution the models were trained for:
                another temperature, say (``generator.target.at_temperature(350)``).
            progress: Whether to show how far it is.

        Raises: InputError: not a positive number, more exact densities than samples, the models
            give numbers that are not finite, or annealing in Cartesian coordinates.
        """
        if num_samples < 1:
            raise InputError(
                "num_samples", expected="at least 1", got=num_samples, remedy="ask for more"
            )
        if not 0 <= num_exact <= num_samples:
            raise InputError(
                "num_exact", expected=f"0 to {num_samples}, the number of samples", got=num_exact,
                remedy="ask for fewer, or draw more samples",
            )  # fmt: skip
        # A quarter of them is drawn from each side of the state.
        if 0 < num_exact < min(4 * MIN_EXACT, num_samples):
            raise InputError(
                "num_exact", expected=f"at least {4 * MIN_EXACT}, or of all samples", got=num_exact,
                remedy="ask for more, or for none",
            )  # fmt: skip
        # The batches, then the same joined.
        require_memory(
            f"{num_samples} samples",
            2 * num_samples * 8 * (3 * self.molecule.num_atoms + 3),
            "draw fewer, or draw them into a file by `bnce sample`",
        )
        if annealing is not None and not isinstance(annealing, AnnealingConfig):
            raise InputError(
                "annealing",
                expected="an AnnealingConfig",
                got=annealing,
                remedy="AnnealingConfig() anneals, AnnealingConfig(num_levels=20) in 20 levels",
            )
        if annealing is not None and not annealing.enabled:
            annealing = None
        aim = self.target if target is None else target.to(self.device)
        evaluate, num_levels = self._evaluation(aim, annealing, seed)
        with Progress("sample", total=num_samples, unit="sample", shown=progress) as display:
            drawn = self._drawn(num_samples, seed, evaluate, show=display.update)
        known = self._known_correction(num_levels) if target is None else None
        log_density_z = drawn.pop("start").astype(np.float64)
        unseen = unseen_part(self.metrics)
        ensemble = Ensemble(aim, correction=known, unseen=unseen, num_levels=num_levels, **drawn)
        if not num_exact:
            return ensemble
        prior = partial(self._prior, BATCH, seed)
        return with_exact(ensemble, log_density_z, num_exact, self.emulator, prior, BATCH)

    def _known_correction(self, num_levels: int) -> Estimate | None:
        """Return the correction of one-step weights, or of about as many levels as the run's."""
        own = self.metrics.get("annealing_num_levels", 0)
        if num_levels and abs(num_levels - own) > _OTHER_LEVELS * own:
            return None
        return self.correction(annealed=num_levels > 0)

    def draw(self, num_samples: int, seed: int, *, first: int = 0) -> dict[str, Any]:
        """Return some of the samples of `sample` as arrays under the names of an `Ensemble`.

        Args:
            num_samples: How many.
            seed: Of the noise.
            first: Place of the first one among all, a multiple of ``BATCH``.
        """
        evaluate, _ = self._evaluation(self.target, None, seed)
        drawn = self._drawn(num_samples, seed, evaluate, first=first)
        del drawn["start"]
        return drawn

    def log_density(self, positions_nm: ArrayLike | Tensor) -> FloatArray:
        """Return the emulator's normalised log density, modulo rigid motion.

        Args:
            positions_nm: ``(batch, atoms, 3)`` [nm].

        Returns: ``(batch,)`` [nats].
        Raises: InputError: another number of atoms, not finite, not in nm, or a singular geometry.
        """
        return self._log_density(self._checked(positions_nm))

    def reduced_potential(self, positions_nm: ArrayLike | Tensor) -> FloatArray:
        """Return the target's potential energy in units of kT.

        Args:
            positions_nm: ``(batch, atoms, 3)`` [nm].

        Returns: ``(batch,)`` [kT].
        Raises: InputError: as for `log_density`.
        """
        return self._reduced_potential(self._checked(positions_nm))

    def evaluate(self, positions_nm: ArrayLike | Tensor) -> Ensemble:
        """Return conformations with the weights that samples of the emulator would have.

        Hydrogens of one atom that are numbered the other way round are exchanged first. Mirror
        images, and a torsion that the emulator never turns (a cis peptide bond), have no weight.

        Args:
            positions_nm: ``(batch, atoms, 3)`` [nm].

        Raises: InputError: as for `log_density`.
        """
        positions = self._checked(positions_nm)
        log_density, potential = self._log_density(positions), self._reduced_potential(positions)
        possible = has_native_chirality(self.molecule, positions)
        possible &= self.density.coordinates.in_basin(positions).cpu()
        weights = molecule_log_weights(potential, log_density, possible.numpy())
        return Ensemble(
            self.target,
            positions.numpy(),
            log_density,
            potential,
            weights,
            correction=self.correction(),
            unseen=unseen_part(self.metrics),
        )

    def log_weights(self, positions_nm: ArrayLike | Tensor) -> FloatArray:
        """Return the log weights of the emulator's samples towards the target.

        Args:
            positions_nm: ``(batch, atoms, 3)`` [nm].

        Returns: ``(batch,)`` [nats], unnormalised; ``-inf`` for mirror images.
        Raises: InputError: as for `log_density`.
        """
        return self.evaluate(positions_nm).log_weights

    def save(self, path: str | Path, *, half_precision: bool = False) -> None:
        """Write everything to one file, atomically; it loads without running code.

        Args:
            path: The file.
            half_precision: Whether to store the networks' weights in 16 bits.
        """
        on_cpu = self.to("cpu")
        models = {"emulator": on_cpu.emulator.to_state(), "energy": on_cpu.density.to_state()}
        if half_precision:
            for state in models.values():
                state["weights"] = halved(state["weights"])
        target = self.target_config
        if target.pdb is not None:  # which is not sent along; what it said is
            target = target.model_copy(update={"sequence": self.molecule.name, "pdb": None})
        content = {
            "schema_version": SCHEMA_VERSION,
            "kind": _KIND,
            "molecule": self.molecule.identity,
            "target": target.model_dump(mode="json"),
            "target_state": self.target.to_state(),
            **models,
            "metrics": dict(self.metrics),
        }
        write_torch(local_path(path), content)

    @classmethod
    def load(cls, path: str | Path, *, device: str | torch.device = "cpu") -> "BoltzmannGenerator":
        """Read a run's folder, or a file that `save` wrote.

        Args:
            path: The folder or the file.
            device: Where it will compute: ``cpu``, ``cuda`` or ``cuda:N``.

        Raises: InputError: absent, unfinished, torn, or something else; or no such device.
        """
        place = device_from_name(device)
        path = local_path(path)
        if not is_folder(path):
            return cls._of_file(path).to(place)
        folder = RunFolder(path)
        if not folder.config_path.exists():
            raise InputError(
                f"folder {folder.path}",
                expected="a run's folder",
                got="no config.yaml in it",
                remedy="name a folder that `bnce train` wrote; of many molecules, one of theirs in "
                "it, or a sequence besides",
            )
        target_config = load_section(TargetConfig, folder.config_path, "target")
        return cls.of_run(folder, target_config, Target.from_config(target_config)).to(place)

    @classmethod
    def of_run(
        cls, folder: RunFolder, target_config: TargetConfig, target: Target
    ) -> "BoltzmannGenerator":
        """Return the models of a run whose target is at hand.

        Args:
            folder: Of the run.
            target_config: The distribution, as in its configuration.
            target: Built from it.

        Raises: InputError: a model is absent, torn, or of another molecule.
        """
        identity = target.molecule.identity
        metrics = folder.path / "metrics.json"
        emulator = folder.stage("train_emulator") / "emulator.pt"
        energy = folder.stage("train_energy") / "energy.pt"
        return cls(
            target_config,
            target,
            Emulator.load(emulator, molecule_identity=identity),
            LearnedDensity.load(energy, molecule_identity=identity),
            read_json(metrics) if metrics.exists() else {},
        )

    @classmethod
    def _of_file(cls, path: Path) -> "BoltzmannGenerator":
        content = load_state(path, _KIND)
        with as_input_error(partial(unusable, path)):
            target_config = with_values(TargetConfig(), content["target"])
            # Files of earlier versions have it of molecules from a topology only.
            state = content.get("target_state")
            target = (
                Target.from_config(target_config)
                if state is None
                else Target.from_state(target_config, state)
            )
            return cls(
                target_config,
                target,
                Emulator.from_state(content["emulator"]),
                LearnedDensity.from_state(content["energy"]),
                content["metrics"],
            )

    def _prior(self, size: int, seed: int, index: int) -> Tensor:
        # Always a whole batch: what is drawn of it must not depend on how much is used.
        return self.emulator.sample_prior(BATCH, generator(seed, "sample", index))[:size]

    def _drawn(
        self,
        num_samples: int,
        seed: int,
        evaluate: Evaluate,
        *,
        first: int = 0,
        show: Callable[[int], None] = lambda done: None,
    ) -> dict[str, Any]:
        """Return the arrays of an `Ensemble`, and the learned log density of the ``start``."""
        batches = []
        for start in range(first, first + num_samples, BATCH):
            size, index = min(BATCH, first + num_samples - start), start // BATCH
            z = self.emulator.transport(self._prior(size, seed, index))
            batches.append(_weighted(evaluate(z, index)) | {"start": self._start(z)})
            show(start + size - first)
        return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}

    def _start(self, z: Tensor) -> FloatArray:
        return self.density.log_density_z(z).cpu().numpy()

    def _evaluation(
        self, target: Target, annealing: AnnealingConfig | None, seed: int
    ) -> tuple[Evaluate, int]:
        """Return what evaluates, or anneals, the samples ``z`` of a batch, given its index.

        Besides the number of levels that it anneals in, which is 0 if it does not.
        """
        target = target.to(self.device)
        if annealing is None:
            return partial(self._in_one_step, target), 0
        annealer = Annealer.of(self.density, target)
        key = (seed, "annealing")
        schedule = annealer.tune(draw_pilot(self.emulator, annealing, *key), annealing, *key)

        def anneal(z: Tensor, index: int) -> dict[str, Tensor]:
            noise = generator(seed, "anneal", index, device=self.device)
            return annealer.anneal(z, schedule, noise)

        return anneal, schedule.num_levels

    def _in_one_step(self, target: Target, z: Tensor, _: int) -> dict[str, Tensor]:
        log_density = self.density.log_density_z(z)
        return evaluate_samples(target, self.emulator.coordinates, z, log_density)

    def _checked(self, positions_nm: ArrayLike | Tensor) -> Tensor:
        positions = torch.as_tensor(positions_nm, dtype=torch.float64).detach().cpu()
        require_molecules(self.molecule, positions)
        return relabel_hydrogens(self.molecule, positions)

    def _log_density(self, positions: Tensor) -> FloatArray:
        log_density = self.density.log_density(positions.to(self.device)).cpu().numpy()
        return log_density + log_num_images(self.molecule, self.density.coordinates)

    @torch.no_grad()
    def _reduced_potential(self, positions: Tensor) -> FloatArray:
        on_device = positions.to(self.device)
        return self.target.force_field.reduced_potential(on_device).cpu().numpy()


def _weighted(evaluated: Mapping[str, Tensor]) -> dict[str, FloatArray]:
    """Return the arrays of an `Ensemble`; weights of annealed samples are known already."""
    arrays = {name: array.cpu().numpy() for name, array in evaluated.items()}
    kept = {name: arrays[name] for name in ("positions_nm", "log_density", "reduced_potential")}
    weights = arrays.get("log_weights")
    if weights is None:
        weights = molecule_log_weights(
            arrays["reduced_potential"], arrays["log_density"], arrays["native_chirality"]
        )
    return kept | {"log_weights": weights}
