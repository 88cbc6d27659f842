"""A learned density in the plane: its values, its samples and its distance from the true one."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bnce_dist.config.load import load_config
from bnce_dist.core.interpolant import velocity_from_score
from bnce_dist.core.metrics import kl_divergence_on_grid, log_normaliser_on_grid
from bnce_dist.core.ode import midpoint
from bnce_dist.core.path import ProductPath
from bnce_dist.core.space import Space
from bnce_dist.core.systems import grid, system_from_name
from bnce_dist.generator.architectures import build_energy_matching
from bnce_dist.nn.energy_model import EnergyModel
from bnce_dist.runs.planar.config import PlanarConfig
from bnce_dist.training.checkpoint import load_checkpoint

# The velocity is the score over alpha, which vanishes at t = 1; here the data's share of the
# variance is still a thousandth.
PLANE = Space(2)
ODE_START = 0.98


@dataclass(frozen=True)
class PlanarDensity:
    """The marginals of a path in the plane, as an energy model has learned them.

    Args:
        energy_model: The model.
        path: The path it was trained on.
    """

    energy_model: EnergyModel
    path: ProductPath

    @classmethod
    def of(cls, objective: Any) -> "PlanarDensity":
        """Return the density that an ``EnergyMatching`` trains."""
        return cls(objective.energy_model, objective.path)

    @classmethod
    def load(cls, folder: Path) -> "PlanarDensity":
        """Read what a finished run has learned: its averaged weights.

        Raises: InputError: the folder holds no finished run.
        """
        config = load_config(PlanarConfig, folder / "config.yaml")
        objective = build_energy_matching(config.energy_of_objective, PLANE)
        objective.load_state_dict(load_checkpoint(folder / "training" / "checkpoint.pt")["ema"])
        return cls.of(objective.eval())

    @torch.no_grad()
    def log_density(self, points: Tensor) -> Tensor:
        """Return the normalised log density, ``(batch,)`` [nats], of points ``(batch, 2)``."""
        return self.energy_model.log_density_z(self._to_model(points), self.path).cpu()

    @torch.no_grad()
    def log_density_up_to_constant(self, points: Tensor) -> Tensor:
        """Return ``U_0``, ``(batch,)`` [nats], of points ``(batch, 2)``."""
        x = self._to_model(points)
        return self.energy_model(x, x.new_zeros(len(x))).cpu()

    def sample(
        self,
        num_samples: int,
        generator: torch.Generator,
        *,
        num_steps: int = 40,
        time_exponent: float = 2.5,
    ) -> Tensor:
        """Draw samples by the probability-flow ODE of the learned score.

        Args:
            num_samples: How many.
            generator: Source of randomness.
            num_steps: Midpoint steps.
            time_exponent: Above 1 the steps shorten towards the data.

        Returns: ``(num_samples, 2)``.
        """
        schedule = self.path.euclidean

        def velocity(z: Tensor, t: Tensor) -> Tensor:
            with torch.enable_grad():
                z = z.detach().requires_grad_()
                (score,) = torch.autograd.grad(self.energy_model(z, t).sum(), z)
            return velocity_from_score(schedule, z.detach(), score, t)

        noise = self.path.sample_noise(num_samples, generator)
        start = schedule.sigma(noise.new_tensor(ODE_START)) * noise
        return midpoint(velocity, start, num_steps, ODE_START, time_exponent=time_exponent)

    def _to_model(self, points: Tensor) -> Tensor:
        return points.to(next(self.energy_model.parameters()))


def grid_metrics(system: str, cells_per_side: int, objective: Any) -> dict[str, float]:
    r"""Return how far a learned density is from the true one, on a grid.

    Args:
        system: Name of the true distribution.
        cells_per_side: Of the grid.
        objective: An ``EnergyMatching``.

    Returns: ``kl_grid``, the forward divergence from :math:`\exp U_0` normalised on the grid;
        ``kl_normalised``, that from the normalised density as it is, of which ``log_z_error``
        is the log integral over the grid [nats].
    """
    true, learned = system_from_name(system), PlanarDensity.of(objective)
    points, cell_area = grid(true.half_width, cells_per_side)
    log_p, log_q = true.log_density(points), learned.log_density(points)
    unnormalised = learned.log_density_up_to_constant(points)
    return {
        "kl_grid": kl_divergence_on_grid(log_p, unnormalised, cell_area),
        "kl_normalised": kl_divergence_on_grid(log_p, log_q, cell_area, normalise=False),
        "log_z_error": log_normaliser_on_grid(log_q, cell_area),
    }
