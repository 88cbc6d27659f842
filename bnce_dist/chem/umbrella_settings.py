"""The grid of umbrella windows in (phi, psi) and how long it is sampled."""

from dataclasses import dataclass, field

import numpy as np
import torch

from bnce_dist.chem.force_field import BOLTZMANN_KJ_MOL_KELVIN
from bnce_dist.chem.langevin import LangevinSettings
from bnce_dist.chem.replica_exchange import window_centres
from bnce_dist.core.errors import InputError


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
        rotamer_ceiling_kt: Height that is left to the barriers of the other torsions [kT].
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
    rotamer_ceiling_kt: float = 2.0
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
