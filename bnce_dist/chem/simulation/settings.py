"""The grid of umbrella windows in (phi, psi) and how long it is sampled."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

import numpy as np
import torch
from pydantic import Field, model_validator

from bnce_dist.chem.potentials.force_field import BOLTZMANN_KJ_MOL_KELVIN
from bnce_dist.chem.simulation.langevin import LangevinSettings
from bnce_dist.chem.simulation.replica_exchange import window_centres
from bnce_dist.config.section import (
    Count,
    Fraction,
    NonNegative,
    Positive,
    Section,
)
from bnce_dist.core.errors import InputError


class ReferenceConfig(Section):
    """The short umbrella sampling that every run makes for itself."""

    renamed: ClassVar[Mapping[str, str]] = {"max_stderr_kt": "max_stderr_kT"}

    num_tasks: Count = 2
    """Independent simulations, one task each; each is a replica of the error estimate."""
    num_phi: Annotated[int, Field(ge=4, multiple_of=2)] = 16
    """Windows along phi."""
    num_psi: Annotated[int, Field(ge=4, multiple_of=2)] = 16
    """Windows along psi."""
    phi_stiffness_kj_mol: Positive = 30.0
    """Strength k of the bias k (1 - cos(phi - centre)) [kJ/mol]."""
    psi_stiffness_kj_mol: Positive = 30.0
    """Strength k of the bias k (1 - cos(psi - centre)) [kJ/mol]."""
    burn_in_ps: NonNegative = 2.0
    """Hot dynamics before everything else, per chain [ps]."""
    flattening_stages: Annotated[int, Field(ge=0)] = 4
    """Times the landscape is measured and levelled before anything is recorded."""
    flattening_ps: Positive = 3.0
    """Dynamics before each levelling, per chain [ps]."""
    equilibration_ps: NonNegative = 5.0
    """Discarded dynamics, per chain [ps]."""
    production_ps: Positive = 25.0
    """Recorded dynamics, per chain [ps]."""
    positions_interval_ps: Positive = 1.0
    """Time between recorded positions [ps]."""
    timestep_fs: Positive = 2.0
    """Integration step [fs]."""
    num_blocks: Annotated[int, Field(ge=2)] = 5
    """Blocks in time whose spread gives the standard error."""
    max_stderr_kT: Positive = 0.10
    """Largest standard error that counts as converged [kT]."""


class DatasetConfig(Section):
    """Unbiased chains from biased starts: the data the emulator learns from."""

    num_chains: Count = 512
    """Chains, in all tasks together."""
    num_tasks: Count = 2
    """Tasks the chains are dealt to."""
    frames_per_chain: Count = 200
    """Frames kept of each chain."""
    frame_interval_ps: Positive = 0.2
    """Time between kept frames [ps]."""
    equilibration_ps: NonNegative = 1.0
    """Discarded dynamics, per chain [ps]."""
    state_fraction: Fraction = 0.25
    """Share of chains that start in the state."""
    timestep_fs: Positive = 2.0
    """Integration step [fs]."""

    @model_validator(mode="after")
    def _check_chains(self) -> "DatasetConfig":
        self.require(
            self.num_chains % self.num_tasks == 0,
            "num_chains a multiple of num_tasks",
            "num_chains",
            "num_tasks",
        )
        return self


@dataclass(frozen=True)
class UmbrellaSettings:
    """A periodic grid of windows in phi and psi, and how long to sample it.

    Args:
        num_phi: Windows along phi, even.
        num_psi: Windows along psi, even.
        phi_stiffness_kj_mol: k in k (1 - cos(phi - phi0)) [kJ/mol].
        psi_stiffness_kj_mol: The same for psi [kJ/mol].
        langevin: Dynamics at the target temperature.
        exchange_interval_steps: Steps between exchanges; the angles are recorded there.
        burn_in_ps: Hot dynamics before anything else, per chain [ps].
        burn_in_temperature_kelvin: Its temperature [K].
        flattening_stages: Times the landscape is measured and levelled.
        flattening_ps: Dynamics per chain before each levelling [ps].
        flattening_order: Highest harmonic of the levelling bias.
        rotamer_ceiling_kT: Height that is left to the barriers of the other torsions [kT].
        equilibration_ps: Discarded dynamics after the last levelling, per chain [ps].
        production_ps: Recorded dynamics, per chain [ps].
        positions_interval_ps: Time between recorded positions [ps].
    """

    num_phi: int = 16
    num_psi: int = 16
    phi_stiffness_kj_mol: float = 30.0
    psi_stiffness_kj_mol: float = 30.0
    langevin: LangevinSettings = field(default_factory=LangevinSettings)
    exchange_interval_steps: int = 50
    burn_in_ps: float = 2.0
    burn_in_temperature_kelvin: float = 600.0
    flattening_stages: int = 4
    flattening_ps: float = 3.0
    flattening_order: int = 6
    rotamer_ceiling_kT: float = 2.0
    equilibration_ps: float = 5.0
    production_ps: float = 25.0
    positions_interval_ps: float = 1.0

    def __post_init__(self) -> None:
        for name in ("num_phi", "num_psi"):
            count = getattr(self, name)
            if count < 4 or count % 2:
                raise InputError(
                    name, expected="an even number of at least 4", got=count,
                    remedy="neighbours are paired around the circle; choose for example 12",
                )  # fmt: skip
        for name in (
            "exchange_interval_steps", "phi_stiffness_kj_mol", "psi_stiffness_kj_mol",
            "burn_in_temperature_kelvin", "production_ps",
        ):  # fmt: skip
            if not getattr(self, name) > 0:
                raise InputError(
                    name, expected="a positive number", got=getattr(self, name),
                    remedy=f"set {name} above zero",
                )  # fmt: skip

    @property
    def num_windows(self) -> int:
        """Windows of the grid, each held by one chain."""
        return self.num_phi * self.num_psi

    @property
    def interval_ps(self) -> float:
        """Time between exchanges [ps]."""
        return self.exchange_interval_steps * self.langevin.timestep_fs * 1e-3

    @property
    def kt_kj_mol(self) -> float:
        """Thermal energy [kJ/mol]."""
        return BOLTZMANN_KJ_MOL_KELVIN * self.langevin.temperature_kelvin

    @property
    def reduced_stiffness(self) -> tuple[float, float]:
        """Strength of the windows along (phi, psi) [kT]."""
        return (
            self.phi_stiffness_kj_mol / self.kt_kj_mol,
            self.psi_stiffness_kj_mol / self.kt_kj_mol,
        )

    def centres(self) -> np.ndarray:
        """Return the window centres (phi, psi), ``(num_windows, 2)`` [rad]."""
        return torch.cartesian_prod(
            window_centres(self.num_phi), window_centres(self.num_psi)
        ).numpy()

    def reduced_bias(self, phi: np.ndarray, psi: np.ndarray) -> np.ndarray:
        """Return the bias of every window at every sample, ``(num_windows, samples)`` [kT]."""
        centres, (k_phi, k_psi) = self.centres(), self.reduced_stiffness
        return k_phi * (1 - np.cos(phi - centres[:, :1])) + k_psi * (
            1 - np.cos(psi - centres[:, 1:])
        )
