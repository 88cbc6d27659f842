"""What a field for unseen molecules owes to the number of its teachers and to its coordinates.

Fields of equal training are judged by the exact log density that they give to frames of seven
molecules that none of them has seen: frames made for this alone, as those of the teachers. Longer
trainings, one of them that of the committed field, say what more steps give.

    python benchmarks/zero_shot_ablation.py --write       # three quarters of an hour of two cores
"""

import multiprocessing
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from record import publish
from torch import Tensor
from zero_shot import ASKED, CONFIG

from bnce_dist.chem.coordinates.tokens import tokens_of
from bnce_dist.chem.coordinates.types import Blocks, StiffTypes
from bnce_dist.chem.molecule import Molecule
from bnce_dist.config.load import load_config
from bnce_dist.core.padded_tokens import pack_vectors
from bnce_dist.data.atomic import read_json, write_json
from bnce_dist.generator.folder import RunFolder
from bnce_dist.generator.shared_architectures import build_token_field, build_token_matching
from bnce_dist.generator.shared_emulator import SharedEmulator
from bnce_dist.generator.shared_generator import load_field
from bnce_dist.pipeline.config import Config
from bnce_dist.pipeline.executor import LocalExecutor
from bnce_dist.pipeline.stages.fitting import fit_in_folder
from bnce_dist.runs.fleet.members import members_of
from bnce_dist.runs.molecule import prepare, run_molecule
from bnce_dist.runs.transferable.internal import FILE_NAME, training_positions
from bnce_dist.runs.transferable.run import SPREAD_DATA
from bnce_dist.training.task import TrainingMetadata

# Every residue of the seven in its place, once; then in more neighbourhoods.
TEN = ("GT", "EA", "IA", "KA", "NS", "SC", "AN", "AM", "AY", "AF")
TWENTY = (*TEN, "AA", "GA", "AS", "SA", "EG", "KG", "IG", "NG", "GC", "TM")
COMMITTED = Path(__file__).with_name("zero_shot.pt")
SEED = 0


def main(
    output: Annotated[Path, typer.Option(help="Folder of what is made.")] = Path("runs/ablation"),
    num_steps: Annotated[int, typer.Option(help="Of each training but the longer one.")] = 1000,
    num_frames: Annotated[int, typer.Option(help="Of each molecule, that are judged by.")] = 16,
    processes: Annotated[int, typer.Option(help="That share the work.")] = 2,
    write: Annotated[bool, typer.Option("--write", help="Also write the record.")] = False,
) -> None:
    """Make data, train and judge, each what is not there yet; print one JSON line."""
    all_taught = load_config(Config, CONFIG).transferable.training_molecules
    asked = ASKED.split(",")
    variants: dict[str, tuple[Sequence[str], Blocks, int]] = {
        "40_longer": (all_taught, "centre", 3 * num_steps),
        "40": (all_taught, "centre", num_steps),
        "40_coordinate": (all_taught, "coordinate", num_steps),
        "20": (TWENTY, "centre", num_steps),
        "10": (TEN, "centre", num_steps),
    }
    with multiprocessing.get_context("spawn").Pool(processes, torch.set_num_threads, (1,)) as pool:
        pool.starmap(simulate, [(name, output) for name in (*all_taught, *asked)], chunksize=1)
        pool.starmap(
            train, [(output / name, output, *variant) for name, variant in variants.items()],
            chunksize=1,
        )  # fmt: skip
        fields = {name: output / name / FILE_NAME for name in variants} | {"committed": COMMITTED}
        questions = [
            (name, path, sequence, output, num_frames)
            for name, path in fields.items()
            for sequence in asked
        ]
        answers = iter(pool.starmap(judge, questions, chunksize=1))
    nats = {name: {sequence: next(answers) for sequence in asked} for name in fields}
    numbers = {name: summary(nats[name], nats["40"], path) for name, path in fields.items()}
    publish(
        "zero_shot_ablation",
        {"num_frames_each": num_frames, "fields": numbers},
        ("torch", "openmm"),
        write=write,
    )


def simulate(sequence: str, output: Path) -> None:
    """Leave frames of a molecule, made as those of the teachers."""
    config = load_config(Config, CONFIG, ["tracking.backend=none", "cluster.executor=local"])
    (member,) = members_of(sequence, config, output / "data")
    run = prepare(member.config, member.folder, kind=SPREAD_DATA)
    run_molecule(run, LocalExecutor(), last_stage="simulate")


def train(
    folder: Path, output: Path, taught: Sequence[str], blocks: Blocks, num_steps: int
) -> None:
    """Leave a field that learned from the data of some molecules."""
    if (folder / FILE_NAME).exists():
        return
    settings = [f"transferable.num_steps={num_steps}", f"token_field.blocks={blocks}"]
    config = load_config(Config, CONFIG, settings)
    molecules = [Molecule.from_sequence(sequence) for sequence in taught]
    positions = [frames_of(output, one) for one in molecules]
    types = StiffTypes.fit(molecules, positions, blocks)
    bound = [types.coordinates(molecule, {})[0] for molecule in molecules]
    tokens = [
        tokens_of(molecule, coordinates.zmatrix)
        for molecule, coordinates in zip(molecules, bound, strict=True)
    ]
    vectors = [
        coordinates.encode(frames[coordinates.in_basin(frames)])[0].float()
        for coordinates, frames in zip(bound, positions, strict=True)
    ]
    field = build_token_field(config.token_field, tokens[0])
    fit_in_folder(
        folder,
        LocalExecutor(),
        field,
        lambda: build_token_matching(config.transferable, config.token_field, tokens),
        [pack_vectors(vectors, tokens).numpy()],
        config.transferable.with_seed(SEED),
        TrainingMetadata("emulator", molecules[0].identity, field.config()),
    )
    history = read_json(folder / "history.json")
    options = config.transferable
    steps = options.num_ode_steps, options.ode_time_exponent
    SharedEmulator(types, field, tuple(taught), history, *steps).save(folder / FILE_NAME)


def judge(name: str, path: Path, sequence: str, output: Path, num_frames: int) -> list[float]:
    """Return the negative log density that a field gives to frames of a molecule [nats].

    Of the positions, modulo rigid motion; infinite where no noise leads to a frame.
    """
    answer = output / "answers" / f"{name}_{sequence}_{num_frames}.json"
    if answer.exists():
        return list(read_json(answer)["nats"])
    shared, _ = load_field(path)
    molecule = Molecule.from_sequence(sequence)
    emulator, _ = shared.bound_to(molecule, {})
    frames = frames_of(output, molecule)
    frames = frames[emulator.coordinates.in_basin(frames)]
    rows = torch.linspace(0, len(frames) - 1, num_frames).long()
    z, log_det = emulator.coordinates.encode(frames[rows])
    started = time.monotonic()
    log_density, found = emulator.log_density_z(z.float())
    nats = torch.where(found, -(log_density.double() + log_det), torch.inf)
    print(f"{name} {sequence}: {time.monotonic() - started:.0f} s", flush=True)
    write_json(answer, {"nats": [min(value, 1e9) for value in nats.tolist()]})
    return [float(value) for value in nats.clamp(max=1e9)]


def summary(
    nats: dict[str, list[float]], baseline: dict[str, list[float]], path: Path
) -> dict[str, Any]:
    """Return what a field gives, and how much more than another in the same frames."""
    own, other = (np.array(list(one.values())) for one in (nats, baseline))
    usable = (own < 1e8) & (other < 1e8)
    difference = np.where(usable, own - other, np.nan)
    shared, _ = load_field(path)
    return {
        "num_teachers": len(shared.training_molecules),
        "blocks": shared.types.blocks,
        "num_steps": int(shared.history[-1]["step"]),
        "training_loss": shared.history[-1]["loss"],
        "num_not_found": int((own > 1e8).sum()),
        "nats_more_than_40": float(np.nanmean(difference)),
        "nats_more_than_40_stderr": float(
            np.nanstd(difference, ddof=1) / np.sqrt(max(usable.sum(), 1))
        ),
        "by_molecule": dict(zip(nats, np.nanmean(difference, axis=1).tolist(), strict=True)),
    }


def frames_of(output: Path, molecule: Molecule) -> Tensor:
    """Return the frames of a molecule's data set, ``(frames, atoms, 3)`` [nm]."""
    folder = RunFolder(output / "data" / molecule.name)
    return training_positions(folder.stage("simulate"), molecule, SEED)


if __name__ == "__main__":
    typer.run(main)
