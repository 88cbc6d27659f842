"""A rank of a gloo group without Ray: goes through trainings that a test asks for.

    python ranks.py FOLDER RANK WORLD_SIZE

``FOLDER/trainings.json`` lists them; what one leaves is ``FOLDER/NAME_STEP.pt``, or
``FOLDER/NAME.txt`` if it was refused or diverged.
"""

import json
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from torch import nn

from bnce_dist.core.couplings import COUPLINGS
from bnce_dist.core.errors import InputError
from bnce_dist.core.interpolant import LinearInterpolant, TrigonometricInterpolant
from bnce_dist.core.molecular_flow_matching import MolecularFlowMatching
from bnce_dist.core.objectives import EnergyMatching, FlowMatching
from bnce_dist.core.path import ProductPath
from bnce_dist.distributed.parallel import parallelise
from bnce_dist.nn.energy import LateFusionEnergy
from bnce_dist.nn.gvp import GVPVectorField
from bnce_dist.nn.recomputing import with_activation_checkpointing
from bnce_dist.nn.velocity import InternalVelocity
from bnce_dist.pipeline.cluster import Parallelism
from bnce_dist.training.checkpoint import load_resumable, save_checkpoint
from bnce_dist.training.loop import train
from bnce_dist.training.settings import TrainSettings
from bnce_dist.training.strategy import SingleDevice
from bnce_dist.training.task import TrainingMetadata, TrainingTask


class Stopped(Exception):
    """The training was to end here."""


def build_molecular_matching() -> nn.Module:
    """Two molecules of different size in every batch."""
    field = GVPVectorField(3, num_layers=2, num_scalars=8, num_vectors=4, max_distance=8.0)
    features = [torch.eye(5, 3), torch.eye(4, 3).flip(1)]
    coupling = COUPLINGS["kabsch"]
    return MolecularFlowMatching(field, LinearInterpolant(), features, coupling=coupling)


def build_objective(kind: str, num_circular: int) -> nn.Module:
    if kind == "molecules":
        return build_molecular_matching()
    if kind == "molecules_recomputed":
        return with_activation_checkpointing(build_molecular_matching)
    path = ProductPath(TrigonometricInterpolant(), num_euclidean=3, num_circular=num_circular)
    if kind == "flow":
        return FlowMatching(InternalVelocity(3, num_circular, width=17, depth=2), path)
    model = LateFusionEnergy(3, num_circular, width=17, depth=2, num_features=8, time_width=16)
    return EnergyMatching(
        model,
        path,
        score_weight=1.0,
        infonce_weight=2.0,
        num_negatives=16,
        negatives="stratified",
        time_exponent=2.5,
    )


def make_task(folder: Path, training: dict[str, Any]) -> TrainingTask:
    kind, num_circular = training["objective"], training["num_circular"]
    data_path = folder / training.get("data", f"z{num_circular}.npy")
    settings = TrainSettings(
        num_steps=30,
        warmup_steps=10,
        checkpoint_interval=6,
        seed=5,
        **{"global_batch_size": 64, "report_interval": 1} | training.get("settings", {}),
    )
    return TrainingTask(
        lambda: build_objective(kind, num_circular),
        data_path,
        settings,
        TrainingMetadata(kind, "molecule-a"),
    )


def run(folder: Path, training: dict[str, Any], rank: int, world_size: int) -> None:
    """Train from the checkpoint ``resume`` (or the start) to the step ``stop`` (or the end)."""
    task = make_task(folder, training)
    parallelism = Parallelism(**training["parallelism"] or {})
    resume = training.get("resume")

    def save(content: dict[str, Any]) -> None:
        if rank == 0:
            save_checkpoint(folder / f"{training['name']}_{content['step']}.pt", content, task)
        if content["step"] == training.get("stop"):
            raise Stopped

    try:
        train(
            task.create_objective(),
            task.open_data(),
            task.settings,
            rank=rank,
            world_size=world_size,
            accumulation_steps=parallelism.accumulation_steps,
            parallelise=partial(parallelise, parallelism=parallelism)
            if world_size > 1
            else SingleDevice,
            resume=load_resumable(folder / f"{resume}.pt", task) if resume else None,
            save=save,
        )
    except Stopped:
        pass
    except InputError as error:
        (folder / f"{training['name']}.txt").write_text(str(error))


def main(folder: Path, rank: int, world_size: int) -> None:
    torch.set_num_threads(1)
    os.environ["LOCAL_RANK"] = str(rank)
    rendezvous = f"file://{folder / 'rendezvous'}"
    torch.distributed.init_process_group(
        "gloo", init_method=rendezvous, rank=rank, world_size=world_size
    )
    for training in json.loads((folder / "trainings.json").read_text()):
        print(training["name"], file=sys.stderr, flush=True)  # last, if the process is killed
        if training["parallelism"] is not None:
            run(folder, training, rank, world_size)
        elif rank == 0:
            run(folder, training, rank=0, world_size=1)
        torch.distributed.barrier()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
