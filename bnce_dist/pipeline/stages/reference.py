"""The in-run reference: umbrella simulations on all workers, joined by MBAR, or a trajectory."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bnce_dist.chem.simulation.reference import ReferenceFreeEnergy, estimate_reference
from bnce_dist.chem.simulation.reference_frames import Reference
from bnce_dist.chem.simulation.replica_exchange import Windows
from bnce_dist.chem.simulation.settings import ReferenceConfig
from bnce_dist.chem.simulation.trajectory import estimate_from_trajectory
from bnce_dist.chem.simulation.umbrella import RECORDED, WindowFrames, run_umbrella
from bnce_dist.core.device import worker_device
from bnce_dist.core.errors import InputError
from bnce_dist.core.random import seed_from
from bnce_dist.data.shards import ShardedDataset
from bnce_dist.generator.target import Target
from bnce_dist.pipeline.stages.context import StageContext
from bnce_dist.pipeline.stages.trajectory import TRAJECTORY_UNITS, ReferenceReader
from bnce_dist.training.progress import report_part

FRAMES = "umbrella"
"""Name of the data set of frames, also of those of a trajectory."""
EXPLODED_KT = 1_000.0
"""Energy above the median that no molecule in one piece has [kT]."""
_UNITS = {
    "phi": "rad",
    "psi": "rad",
    "window": "1",
    "common_bias": "kT",
    "positions_nm": "nm",
    "reduced_potential": "kT",
}


def run_reference(context: StageContext) -> None:
    """Leave ``reference/result.json`` and ``reference/frames.npz``."""
    if context.config.reference.trajectory is None:
        context.config.reference.require_frames()
        runs, reference = _from_umbrellas(context)
    else:
        runs, reference = _from_trajectory(context)
    summary = _summary(reference)
    require_finite(summary)
    potentials = np.stack([run["reduced_potential"] for run in runs])
    # A recorded position belongs to the last frame of its time.
    shape = runs.read(0, ["phi"])["phi"].shape
    log_weights = reference.log_weights.reshape(len(runs), *shape)[:, :, -1]
    frames = Reference(
        summary,
        phi=reference.phi.astype(np.float32),
        psi=reference.psi.astype(np.float32),
        log_weights=reference.log_weights,
        replica=reference.replica.astype(np.int16),
        reduced_potential=potentials.ravel(),
        potential_log_weights=log_weights.ravel(),
    )
    frames.save(context.folder)
    context.tracker.log_metrics(
        {
            "delta_f_reference_run_kT": reference.delta_f_kT,
            "delta_f_reference_run_stderr_kT": reference.stderr_kT,
        }
    )


def _from_umbrellas(context: StageContext) -> tuple[ShardedDataset, ReferenceFreeEnergy]:
    config = context.config.reference
    windows = config.windows(context.target.force_field.temperature_kelvin)
    runs = context.executor.map_shards(
        partial(
            UmbrellaWorker,
            target=context.target,
            config=config,
            seed=context.config.seed,
            compiled=context.config.cluster.compile_force_field,
        ),
        config.num_tasks,
        context.folder / FRAMES,
        metadata=context.metadata(_UNITS),
        label="reference",
    )
    reference = estimate_reference(
        [_frames(run, windows) for run in runs],
        state=context.target.state,
        num_blocks=config.num_blocks,
        max_stderr_kT=config.max_stderr_kT,
    )
    return runs, reference


def _from_trajectory(context: StageContext) -> tuple[ShardedDataset, ReferenceFreeEnergy]:
    config, target = context.config.reference, context.target
    runs = context.executor.map_shards(
        partial(
            ReferenceReader,
            target=target,
            path=Path(str(config.trajectory)),
            stride=config.stride,
            num_blocks=config.num_blocks,
        ),
        1,
        context.folder / FRAMES,
        metadata=context.metadata(TRAJECTORY_UNITS),
        label="reference",
    )
    # A block of the trajectory stands where a chain would; in time they follow each other.
    series = {
        name: np.moveaxis(array[:, 0], 1, 0).ravel()
        for name, array in runs.load(["phi", "psi", "log_weights"]).items()
    }
    reference = estimate_from_trajectory(
        **series,
        state=target.state,
        num_blocks=config.num_blocks,
        max_stderr_kT=config.max_stderr_kT,
    )
    return runs, _beside_each_other(reference, config.num_blocks)


def _beside_each_other(reference: ReferenceFreeEnergy, num_blocks: int) -> ReferenceFreeEnergy:
    """Return the reference with its frames as the shard has them, blocks beside each other."""
    arrays = {
        name: getattr(reference, name).reshape(num_blocks, -1).T.ravel()
        for name in ("phi", "psi", "log_weights", "replica")
    }
    return replace(reference, **arrays)


class UmbrellaWorker:
    """Runs independent umbrella simulations; the first axis of a shard is time.

    Args:
        target: What to simulate.
        config: How.
        seed: Of the run; the shard's index is added to it.
        compiled: Whether to compile the force field.
    """

    def __init__(self, target: Target, config: ReferenceConfig, seed: int, compiled: bool) -> None:
        self.target, self.config, self.seed = target.to(worker_device()), config, seed
        self.dynamics = self.target.dynamics(config.num_phi * config.num_psi, compiled)

    def __call__(self, index: int) -> dict[str, np.ndarray]:
        """Return one simulation, cut into the times at which positions were recorded.

        Returns: ``phi``, ``psi``, ``window`` and ``common_bias``, ``(times, frames, chains)``;
            of the last frame of each time ``positions_nm``, ``(times, chains, atoms, 3)``, and
            ``reduced_potential``, ``(times, chains)``.
        """
        seed = seed_from(self.seed, "reference", index)
        progress = partial(report_part, unit="ps")
        samples = run_umbrella(self.dynamics, self.target.molecule, self.config, seed, progress)
        times, chains = samples.positions_nm.shape[:2]
        positions = torch.from_numpy(samples.positions_nm).flatten(0, 1)
        force_field = self.target.force_field
        with torch.no_grad():
            potential = force_field.reduced_potential(positions.to(self.dynamics.device)).cpu()
        _require_whole(potential.view(times, chains))
        return {
            **{name: samples.in_times(name) for name in RECORDED},
            "positions_nm": samples.positions_nm,
            "reduced_potential": potential.view(times, chains).numpy(),
        }


def _require_whole(reduced_potential: torch.Tensor) -> None:
    """Refuse a simulation in which a chain flew apart without leaving the finite numbers.

    Args:
        reduced_potential: ``(times, chains)`` [kT].

    Raises: InputError: one did.
    """
    limit = reduced_potential.median() + EXPLODED_KT
    num_exploded = int((~(reduced_potential < limit)).any(dim=0).sum())
    if num_exploded:
        raise InputError(
            "umbrella simulation",
            expected="chains that stay whole",
            got=f"{num_exploded} of {reduced_potential.shape[1]} flown apart",
            remedy="lower reference.timestep_fs, or choose another seed",
        )


def require_finite(summary: Mapping[str, Any]) -> None:
    """Refuse an estimate that too short a simulation has left undefined.

    Args:
        summary: Content of ``result.json``.

    Raises: InputError: a number of it is not finite.
    """
    undefined = [
        name
        for name, value in summary.items()
        if not isinstance(value, str) and not np.isfinite(value).all()
    ]
    if undefined:
        raise InputError(
            "reference simulation",
            expected="frames on both sides of the state in every block, and three blocks or more",
            got=f"no number for {', '.join(undefined)}",
            remedy="raise reference.production_ps, reference.num_tasks or reference.num_blocks",
        )


def _frames(run: dict[str, np.ndarray], windows: Windows) -> WindowFrames:
    """Return the frames of a shard, all times together."""
    return WindowFrames(
        windows, **{name: run[name].reshape(-1, run[name].shape[-1]) for name in RECORDED}
    )


def _summary(reference: ReferenceFreeEnergy) -> dict[str, Any]:
    return {
        "delta_f_kT": reference.delta_f_kT,
        "stderr_kT": reference.stderr_kT,
        "converged": reference.converged,
        "reason": reference.reason,
        "interval_kT": list(reference.interval_kT),
        "trend_p_value": reference.trend_p_value,
        "halves_p_value": reference.halves_p_value,
        "agreement_p_value": reference.agreement_p_value,
        "replica_delta_f_kT": reference.replica_delta_f_kT.tolist(),
        "block_delta_f_kT": reference.block_delta_f_kT.tolist(),
    }
