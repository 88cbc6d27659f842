"""How the in-run reference and the emulator's training data are simulated."""

from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import Field, model_validator

from bnce_dist.chem.potentials.force_field import BOLTZMANN_KJ_MOL_KELVIN
from bnce_dist.chem.simulation.replica_exchange import Windows
from bnce_dist.config.section import Count, Fraction, NonNegative, Place, Positive, Section
from bnce_dist.core.errors import InputError


class ReferenceConfig(Section):
    """The short umbrella sampling that every run makes for itself, or a trajectory instead."""

    left_out_unset = frozenset({"trajectory", "stride"})
    renamed: ClassVar[Mapping[str, str]] = {"max_stderr_kt": "max_stderr_kT"}
    exchange_interval_steps: ClassVar[int] = 50
    """Steps between exchanges; the angles are recorded there."""

    num_tasks: Count = 4
    """Independent simulations, one task each; each is a replica of the error estimate, whose spread
    fewer than four do not show."""
    num_phi: Annotated[int, Field(ge=4, multiple_of=2)] = 12
    """Windows along phi."""
    num_psi: Annotated[int, Field(ge=4, multiple_of=2)] = 12
    """Windows along psi."""
    phi_stiffness_kj_mol: Positive = 20.0
    """Strength k of the bias k (1 - cos(phi - centre)) [kJ/mol]."""
    psi_stiffness_kj_mol: Positive = 20.0
    """Strength k of the bias k (1 - cos(psi - centre)) [kJ/mol]."""
    burn_in_ps: NonNegative = 2.0
    """Hot dynamics before everything else, per chain [ps]."""
    flattening_stages: Annotated[int, Field(ge=0)] = 4
    """Times the landscape is measured and levelled before anything is recorded."""
    flattening_ps: Positive = 3.0
    """Dynamics before each levelling, per chain [ps]."""
    equilibration_ps: NonNegative = 5.0
    """Discarded dynamics, per chain [ps]."""
    production_ps: Positive = 22.0
    """Recorded dynamics, per chain [ps]."""
    positions_interval_ps: Positive = 1.0
    """Time between recorded positions [ps]."""
    timestep_fs: Positive = 2.0
    """Integration step [fs]."""
    num_blocks: Annotated[int, Field(ge=2)] = 5
    """Blocks in time whose spread gives the standard error."""
    max_stderr_kT: Positive = 0.10
    """Largest standard error that counts as converged [kT]."""
    trajectory: Place | None = None
    """Equilibrium trajectory that replaces the umbrella sampling: .dcd, .xtc, .trr, .nc, .pdb,
    or .npz with `positions_nm` and, of a biased one, `log_weights`."""
    stride: Annotated[int, Field(ge=0)] = 0
    """Every how many frames of `trajectory` one is kept; 0 keeps all."""

    @property
    def interval_ps(self) -> float:
        """Time between exchanges [ps]."""
        return self.exchange_interval_steps * self.timestep_fs * 1e-3

    @property
    def total_ps(self) -> float:
        """Time of each chain after the burn-in [ps]."""
        flattening_ps = self.flattening_stages * self.flattening_ps
        return flattening_ps + self.equilibration_ps + self.production_ps

    def require_frames(self) -> None:
        """Check that enough is recorded for the blocks that errors are made of.

        Raises: InputError: it is not.
        """
        num_intervals = max(1, round(self.production_ps / self.interval_ps))
        stride = max(1, round(self.positions_interval_ps / self.interval_ps))
        num_frames = num_intervals // stride * stride
        if num_frames < self.num_blocks:
            raise InputError(
                f"reference.production_ps={self.production_ps:g}",
                expected=f"long enough for a position every {self.positions_interval_ps:g} ps and "
                f"{self.num_blocks} blocks of time",
                got=f"{num_frames} recorded frames",
                remedy="raise it, or lower reference.positions_interval_ps or reference.num_blocks",
            )

    def windows(self, temperature_kelvin: float) -> Windows:
        """Return the grid, its bias in units of kT at a temperature [K]."""
        kt_kj_mol = BOLTZMANN_KJ_MOL_KELVIN * temperature_kelvin
        return Windows(
            self.num_phi,
            self.num_psi,
            (self.phi_stiffness_kj_mol / kt_kj_mol, self.psi_stiffness_kj_mol / kt_kj_mol),
        )


class DatasetConfig(Section):
    """The data the emulator learns from: unbiased chains from biased starts, or a trajectory."""

    left_out_unset = frozenset({"trajectory", "stride"})

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
    """Share of chains that start in the state; they stay there if its barrier is high."""
    timestep_fs: Positive = 2.0
    """Integration step [fs]."""
    trajectory: Place | None = None
    """Trajectory that replaces the chains, in a format of `reference.trajectory`; the more of the
    rarer side it holds, the better."""
    stride: Annotated[int, Field(ge=0)] = 0
    """Every how many frames of `trajectory` one is kept; 0 keeps all."""

    @model_validator(mode="after")
    def _check_chains(self) -> "DatasetConfig":
        self.require(
            self.num_chains % self.num_tasks == 0,
            "num_chains a multiple of num_tasks",
            "num_chains",
            "num_tasks",
        )
        return self

    def require_both_sides(self) -> None:
        """Check that chains of every task start on both sides of the state, if any are to.

        Raises: InputError: they do not.
        """
        wanted = round(self.state_fraction * self.num_chains)
        in_state = round(self.state_fraction * self.chains_per_task)
        if self.trajectory is not None or wanted in (0, self.num_chains):
            return
        if not 0 < in_state < self.chains_per_task:
            raise InputError(
                f"dataset.num_tasks={self.num_tasks} for {self.num_chains} chains",
                expected=f"chains of every task on both sides, a share of {self.state_fraction:g} "
                "in the state",
                got=f"{in_state} of the {self.chains_per_task} of a task in the state",
                remedy="lower dataset.num_tasks, or raise dataset.num_chains",
            )

    @property
    def chains_per_task(self) -> int:
        """Chains that one task runs at once."""
        return self.num_chains // self.num_tasks


class SpreadConfig(Section):
    """Where chains start of molecules that only teach (`transferable.internal`): all free torsions
    turned at random, without an umbrella simulation."""

    num_structures: Count = 512
    """Structures that are turned and relaxed."""
    num_relaxation_steps: Count = 300
    """Steps of steepest descent from each."""
    heat: Positive = 4.0
    """Starts are drawn by the energies of relaxed structures at so many times the temperature."""
