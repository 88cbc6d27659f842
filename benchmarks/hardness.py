"""Damaged inputs of every kind that is read: the right result or one line, never anything else.

nice -n 15 python benchmarks/hardness.py --count 10000 --write
"""

import json
import logging
import os
import shutil
import time
import warnings
from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import mdtraj
import mlflow.pyfunc
import numpy as np
import torch
import typer
from openmm.app import PDBFile
from openmm.unit import nanometer
from record import publish

from bnce_dist.chem.molecule import Molecule
from bnce_dist.chem.simulation.trajectory import read_trajectory
from bnce_dist.config.load import load_config
from bnce_dist.core.errors import InputError
from bnce_dist.data.atomic import read_json, write_json
from bnce_dist.data.shards import DatasetMetadata, ShardedDataset, write_shard
from bnce_dist.generator.boltzmann_generator import BoltzmannGenerator
from bnce_dist.generator.shipped import FOLDER
from bnce_dist.pipeline.config import Config
from bnce_dist.runs.pretrained.comparison import load_umbrella
from bnce_dist.tracking.pyfunc import write_served_models
from bnce_dist.tracking.server import answer_request
from bnce_dist.training.checkpoint import load_checkpoint, save_checkpoint
from bnce_dist.training.settings import TrainSettings
from bnce_dist.training.task import TrainingMetadata, TrainingTask

MODEL = FOLDER / "ace-ala-nme.pt"
CONFIGS = Path(__file__).parents[1] / "jobs" / "configs"
PAGE = 4096

Rng = np.random.Generator


@dataclass(frozen=True)
class Kind:
    """One kind of input.

    Args:
        whole: An undamaged one.
        read: Reads one, and returns what was read as something that can be compared.
        is_checked: Whether it carries a digest or checksums, so that a change must be told; what
            users write by hand cannot, there a changed digit is another input.
    """

    whole: bytes
    read: Callable[[bytes], Hashable]
    is_checked: bool


def kinds(folder: Path) -> dict[str, Kind]:
    """Return every kind of input, with files in a folder."""
    found: dict[str, Kind] = {}

    def add(name: str, path: Path, read: Callable[[Path], Hashable], *, is_checked: bool) -> None:
        def read_bytes(content: bytes) -> Hashable:
            path.write_bytes(content)
            return read(path)

        found[name] = Kind(path.read_bytes(), read_bytes, is_checked)

    molecule = Molecule.from_sequence("ACE-ALA-NME")
    pdb = folder / "a.pdb"
    with pdb.open("w") as stream:
        PDBFile.writeFile(molecule.topology, molecule.positions_nm * nanometer, stream)
    add("PDB", pdb, lambda path: Molecule.from_pdb(path).identity, is_checked=False)
    yaml = Path(shutil.copy(CONFIGS / "alanine_dipeptide.yaml", folder / "a.yaml"))
    add("YAML", yaml, lambda path: str(load_config(Config, path)), is_checked=False)
    found["key=value"] = Kind(
        b"energy.learning_rate=0.002",
        lambda text: str(load_config(Config, None, [text.decode("utf-8", "replace")])),
        is_checked=False,
    )
    model = Path(shutil.copy(MODEL, folder / "generator.pt"))
    add("model file", model, _read_model, is_checked=True)
    checkpoint = _write_checkpoint(folder / "checkpoint.pt")
    add("checkpoint", checkpoint, lambda path: _digest(load_checkpoint(path)), is_checked=True)
    metadata = DatasetMetadata(molecule.identity, {"z": "1"})
    write_shard(folder / "data", 0, {"z": np.ones((500, 9))}, metadata)
    ShardedDataset.finish(folder / "data", 1, metadata)
    for name, file in (("shard", "shard_00000.npz"), ("manifest", "manifest.json")):
        add(name, folder / "data" / file, _read_dataset, is_checked=True)
    write_json(folder / "metrics.json", dict(BoltzmannGenerator.load(MODEL).metrics))
    add("metrics.json", folder / "metrics.json", lambda path: str(read_json(path)), is_checked=True)
    centres = (np.arange(36) + 0.5) * np.pi / 18 - np.pi
    archive = folder / "umbrella.npz"
    np.savez(archive, xs=centres, f_i_mean=np.sin(centres), f_i_std=np.full(36, 0.1))
    add("npz", archive, lambda path: str(load_umbrella(path)), is_checked=True)
    for suffix, is_checked in ((".npz", True), (".xtc", False)):
        path = _write_trajectory(folder / f"trajectory{suffix}", molecule)
        read = partial(_read_trajectory, molecule=molecule)
        add(f"trajectory {suffix}", path, read, is_checked=is_checked)
    found["HTTP body"] = _http(folder, molecule)
    return found


def _write_checkpoint(path: Path) -> Path:
    task = TrainingTask(
        torch.nn.Identity,
        path,
        TrainSettings(num_steps=500),
        TrainingMetadata("energy", "molecule"),
    )
    weights = {"a": torch.linspace(0, 1, 20_000)}
    content = {"step": 5, "model": weights, "ema": weights, "optimizer": {}, "history": []}
    save_checkpoint(path, content, task)
    return path


def _read_model(path: Path) -> Hashable:
    generator = BoltzmannGenerator.load(path)
    states = (generator.emulator.to_state(), generator.density.to_state())
    return _digest([*states, dict(generator.metrics), str(generator.target_config)])


def _write_trajectory(path: Path, molecule: Molecule) -> Path:
    """Write frames that vibrate as molecules do."""
    noise = np.random.default_rng(0).normal(0, 0.003, (120, molecule.num_atoms, 3))
    frames = (molecule.positions_nm + noise).astype(np.float32)
    if path.suffix == ".npz":
        np.savez(path, positions_nm=frames)
    else:
        mdtraj.Trajectory(frames, mdtraj.Topology.from_openmm(molecule.topology)).save(path)
    return path


def _read_trajectory(path: Path, molecule: Molecule) -> Hashable:
    return read_trajectory(path, molecule, 300.0).positions_nm.tobytes()


def _read_dataset(path: Path) -> Hashable:
    dataset = ShardedDataset.open(path.parent)
    return str(dataset.metadata), dataset.num_samples, dataset.load()["z"].tobytes()


def _digest(content: Any) -> Hashable:
    """Return every number of nested plain types and tensors."""
    if isinstance(content, torch.Tensor):
        return content.numpy().tobytes()
    if isinstance(content, dict):
        return tuple((name, _digest(value)) for name, value in content.items())
    if isinstance(content, list | tuple):
        return tuple(_digest(value) for value in content)
    return repr(content)


def _http(folder: Path, molecule: Molecule) -> Kind:
    example = molecule.positions_nm[None]
    served = write_served_models(folder / "served", MODEL, example)
    model = mlflow.pyfunc.load_model(os.fspath(served[""]))

    def read(body: bytes) -> Hashable:
        response = answer_request(model, body, "application/json")
        content = json.loads(response.body)
        if response.status_code == 200:
            return str(content)
        if not 400 <= response.status_code < 500:
            raise RuntimeError(f"status {response.status_code}: {content}")
        raise InputError(content["message"], expected="", got="", remedy="")

    return Kind(json.dumps({"inputs": example.round(4).tolist()}).encode(), read, is_checked=False)


def damaged(whole: bytes, rng: Rng) -> tuple[str, bytes]:
    """Return what was done to a copy, and the copy."""
    data, at = bytearray(whole), int(rng.integers(len(whole)))
    how = str(rng.choice(["bit", "bits", "page", "cut", "repeat", "noise", "delete", "lengthen"]))
    length = min(int(rng.integers(1, max(len(data) // 4, 2))), PAGE)
    if how == "bit":
        data[at] ^= 1 << int(rng.integers(8))
    elif how == "bits":
        for place in rng.integers(len(data), size=8):
            data[place] ^= 1 << int(rng.integers(8))
    elif how == "page":
        start = at // PAGE * PAGE if len(data) > PAGE else at
        data[start : start + PAGE] = bytes(len(data[start : start + PAGE]))
    elif how == "cut":
        del data[at:]
    elif how == "repeat":
        data[at:at] = data[at : at + length]
    elif how == "noise":
        data[at : at + length] = rng.bytes(len(data[at : at + length]))
    elif how == "delete":
        del data[at : at + length]
    else:
        data += rng.bytes(length)
    return how, bytes(data)


def outcome(kind: Kind, expected: Hashable, content: bytes) -> str:
    """Return what reading a damaged input comes to: as it should be, or what is wrong."""
    try:
        found = kind.read(content)
    except InputError as error:
        return "one line" if "\n" not in str(error) else "WRONG: several lines"
    except Exception as error:  # It is what we look for.
        return f"WRONG: {type(error).__name__}: {error}"[:200]
    if found == expected:
        return "right result"
    return "WRONG: another result" if kind.is_checked else "another input"


def main(
    count: Annotated[int, typer.Option(help="Damaged inputs, of all kinds together.")] = 300,
    seed: Annotated[int, typer.Option(help="Of the damage.")] = 0,
    write: Annotated[bool, typer.Option("--write", help="Also write the record.")] = False,
) -> None:
    """Damage inputs, read them, count what happens, print one JSON line."""
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")  # Of OpenMM, about what is wrong with a PDB file.
    rng, started = np.random.default_rng(seed), time.process_time()
    with TemporaryDirectory() as folder:
        found = kinds(Path(folder))
        results = {name: Counter[str]() for name in found}
        wrong: list[dict[str, str]] = []
        for name, kind in found.items():
            expected = kind.read(kind.whole)
            for _ in range(count // len(found) + 1):
                how, content = damaged(kind.whole, rng)
                result = outcome(kind, expected, content)
                results[name][result if not result.startswith("WRONG") else "wrong"] += 1
                if result.startswith("WRONG"):
                    wrong.append({"kind": name, "damage": how, "result": result})
            kind.read(kind.whole)  # The next kind may read the same folder.
    numbers = {
        "num_inputs": sum(sum(counter.values()) for counter in results.values()),
        "num_wrong": len(wrong),
        "kinds": {name: dict(sorted(counter.items())) for name, counter in results.items()},
        "wrong": wrong[:20],
        "seed": seed,
        "cpu_seconds": time.process_time() - started,
    }
    publish("hardness", numbers, ("bnce_dist", "torch", "mlflow", "openmm"), write=write)
    raise typer.Exit(1 if wrong else 0)


if __name__ == "__main__":
    typer.run(main)
