"""Whether the emulator's time features should be warped, although its times are drawn uniformly.

    OMP_NUM_THREADS=1 python benchmarks/time_embedding.py --run runs/seed0 --write

Trains the velocity field of a finished run again on nine tenths of its training data, with features
of ``t`` warped by each exponent and a few seeds, and compares the loss of the averaged weights on
the last tenth, with the same draws for all.
"""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from record import publish
from torch import nn

from bnce_dist.config.load import load_config
from bnce_dist.core.objectives import FlowMatching
from bnce_dist.core.random import generator
from bnce_dist.core.space import Space
from bnce_dist.generator.architectures import EmulatorConfig, build_path
from bnce_dist.generator.emulator import Emulator
from bnce_dist.nn.velocity import InternalVelocity
from bnce_dist.pipeline.config import Config
from bnce_dist.training.local import fit
from bnce_dist.training.task import TrainingMetadata, TrainingTask

ROUNDS = 8


def build(config: EmulatorConfig, space: Space, warp: float) -> nn.Module:
    """Return the run's objective with features warped by another exponent."""
    field = InternalVelocity(
        space.num_euclidean,
        space.num_circular,
        width=config.width,
        depth=config.depth,
        time_exponent=warp,
    )
    path = build_path(config.interpolant, space)
    return FlowMatching(field, path, time_exponent=config.time_exponent)


def held_out_loss(held_out: np.ndarray) -> Callable[[nn.Module], dict[str, float]]:
    """Return what judges an objective on the held-out data, by the same draws each time."""
    data = torch.from_numpy(held_out)

    @torch.no_grad()
    def judge(objective: Any) -> dict[str, float]:
        losses = []
        for number in range(ROUNDS):
            draws = [generator(0, "held out", name, number) for name in ("own", "common")]
            losses.append(float(objective(**objective.draw(data, *draws))["loss"]))
        return {"held_out_loss": float(np.mean(losses))}

    return judge


def final_loss(
    config: EmulatorConfig, space: Space, z: np.ndarray, steps: int, warp: float, seed: int
) -> float:
    """Train once and return the last loss on held-out data."""
    order = np.random.default_rng(0).permutation(len(z))
    cut = len(z) * 9 // 10
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "z.npy"
        np.save(path, z[order[:cut]])
        shorter = config.model_copy(update={"num_steps": steps, "checkpoint_interval": steps})
        task = TrainingTask(
            partial(build, config, space, warp),
            path,
            shorter.with_seed(seed),
            TrainingMetadata("emulator", "time_embedding"),
            held_out_loss(z[order[cut:]]),
        )
        return float(fit(task, Path(directory) / "training").history[-1]["held_out_loss"])


def main(
    run: Annotated[Path, typer.Option(help="Folder of a finished run.")],
    warps: Annotated[str, typer.Option(help="Exponents, with commas.")] = "1.0,2.0",
    seeds: Annotated[int, typer.Option(help="Trainings of each.")] = 3,
    steps: Annotated[int, typer.Option(help="Of each training.")] = 1500,
    write: Annotated[bool, typer.Option("--write", help="Also write the record.")] = False,
) -> None:
    """Train, compare, print one JSON line and write it if asked."""
    config = load_config(Config, run / "config.yaml", []).emulator
    emulator = Emulator.load(run / "train_emulator" / "emulator.pt")
    coordinates = emulator.coordinates
    space = Space(coordinates.num_euclidean, coordinates.num_circular)
    z = np.load(run / "train_emulator" / "z.npy")
    losses = {
        warp: [final_loss(config, space, z, steps, float(warp), seed) for seed in range(seeds)]
        for warp in warps.split(",")
    }
    numbers = {"num_steps": steps, "num_samples": len(z), "held_out_loss_by_exponent": losses}
    publish("time_embedding", numbers, ["torch", "bnce_dist"], write=write)


if __name__ == "__main__":
    typer.run(main)
