"""Samples annealed from their learned density to a target."""

import copy
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from bnce_dist.chem.boltzmann_density import BoltzmannDensity
from bnce_dist.chem.coordinates import WhitenedInternal
from bnce_dist.chem.potentials.force_field import ForceField
from bnce_dist.config.section import Count, Fraction, Section
from bnce_dist.core.annealing import MAX_LEVELS, AnnealingSchedule, anneal, tune_schedule
from bnce_dist.core.bridge import Bridge
from bnce_dist.core.errors import InputError
from bnce_dist.core.random import generator
from bnce_dist.generator.emulator import Emulator
from bnce_dist.generator.evaluation import evaluate_samples
from bnce_dist.generator.learned_density import LearnedDensity
from bnce_dist.generator.target import Target


class AnnealingConfig(Section):
    """The way from the learned density to the target, in steps that keep the weights even."""

    left_out_unset = frozenset({"max_levels"})

    enabled: bool = True
    """Whether to anneal; never done in Cartesian coordinates."""
    num_levels: Count | None = None
    """Densities on the way, denser at the start; null is as many as min_ess_fraction asks for."""
    min_ess_fraction: Fraction = 0.995
    """Effective share of the samples that every level keeps, unless max_levels are too few."""
    max_levels: Annotated[int, Field(ge=MAX_LEVELS)] | None = None
    """Most levels that are chosen; more cost time and even out the weights; null is 100."""
    num_leapfrog: Count = 3
    """Leapfrog steps of the one move at each level: so many gradients."""
    num_pilot: Annotated[int, Field(ge=20)] = 300
    """Samples of the pilot run that finds levels, widths and step sizes."""


@dataclass(frozen=True)
class Annealer:
    """Takes samples to a target, by a schedule that is fixed beforehand.

    Args:
        density: That of the samples as it was learned, the start of the path.
        target: The end of the path: it may differ from the one the models were trained for in
            temperature and potential.
        bridge: Between the two, in float32.
    """

    density: LearnedDensity
    target: Target
    bridge: Bridge

    @classmethod
    def of(cls, density: LearnedDensity, target: Target, *, compiled: bool = False) -> "Annealer":
        """Connect a learned density with a target.

        Args:
            density: Of the samples.
            target: What they are to become samples of.
            compiled: Whether compiling the force field is worth the time.

        Raises: InputError: Cartesian coordinates, or a target without forces.
        """
        if not isinstance(density.coordinates, WhitenedInternal):
            raise InputError(
                "annealing",
                expected="a model in internal coordinates",
                got=type(density.coordinates).__name__,
                remedy="sample without annealing, or train a model of this molecule alone",
            )
        potential = target.force_field
        if isinstance(potential, ForceField):
            potential = potential.astype(torch.float32)
            potential = potential.compiled() if compiled else potential
        end = BoltzmannDensity(
            target.molecule, copy.deepcopy(density.coordinates).float(), potential
        )
        bridge = Bridge(density.log_density_z_and_gradient, end, density.path)
        return cls(density, target, bridge)

    def tune(self, pilot: Tensor, config: AnnealingConfig, *key: int | str) -> AnnealingSchedule:
        """Find the schedule by a pilot run.

        Args:
            pilot: Samples of its own, ``(samples, dim)``, for which nothing else is asked.
            config: What is asked of it.
            key: Of the random stream.
        """
        return tune_schedule(
            self.bridge,
            pilot,
            generator(*key, "tune", device=self.density.device),
            num_levels=config.num_levels,
            min_ess_fraction=config.min_ess_fraction,
            max_levels=config.max_levels or MAX_LEVELS,
            num_leapfrog=config.num_leapfrog,
        )

    def anneal(
        self, z: Tensor, schedule: AnnealingSchedule, noise: torch.Generator
    ) -> dict[str, Tensor]:
        """Anneal samples.

        Args:
            z: Samples in model space, ``(samples, dim)``.
            schedule: Of `tune`.
            noise: Of the moves, on the samples' device.

        Returns: What `evaluate_samples` says of where they arrived, and ``z``, ``log_weights``
            [nats], ``accepted`` and ``clashed``, ``(samples, levels)`` bool.
        Raises: InputError: no sample moves at some level.
        """
        annealed = anneal(self.bridge, z, schedule, noise)
        arrays = evaluate_samples(
            self.target,
            self.density.coordinates,
            annealed.z,
            self.density.log_density_z(annealed.z),
        )
        possible = arrays["native_chirality"] & arrays["reduced_potential"].isfinite()
        return arrays | {
            "z": annealed.z,
            "log_weights": torch.where(possible, annealed.log_weights, -torch.inf),
            "accepted": annealed.accepted,
            "clashed": annealed.clashed,
        }


def draw_pilot(emulator: Emulator, config: AnnealingConfig, *key: int | str) -> Tensor:
    """Return samples of an emulator for `Annealer.tune`, ``(samples, dim)``.

    Args:
        emulator: Of the samples that are to be annealed.
        config: Says how many.
        key: Of the random stream.
    """
    return emulator.transport(emulator.sample_prior(config.num_pilot, generator(*key, "pilot")))
