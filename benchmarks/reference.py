"""The long reference free energy of alanine dipeptide: independent umbrella runs, then a verdict.

Each run is one process on one thread and goes on where it was interrupted; start them side by
side, then analyse them together:

    python benchmarks/reference.py run --seed 0 --folder runs/reference --minutes 25
    python benchmarks/reference.py run --seed 1 --folder runs/reference --minutes 25
    python benchmarks/reference.py analyse --folder runs/reference --write
"""

import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from record import publish

from bnce_dist.chem.molecule import Molecule
from bnce_dist.chem.potentials.force_field import DEFAULT_FORCE_FIELD, ForceField, build_system
from bnce_dist.chem.simulation.bias import FlatteningBias
from bnce_dist.chem.simulation.long_reference import FOLDER, SCHEMA_VERSION
from bnce_dist.chem.simulation.reference import estimate_reference, trend_p_value
from bnce_dist.chem.simulation.settings import ReferenceConfig
from bnce_dist.chem.simulation.umbrella import UmbrellaSampler, UmbrellaSamples
from bnce_dist.chem.state import POSITIVE_PHI
from bnce_dist.data.atomic import atomic_path, write_json

SEQUENCE, TEMPERATURE_KELVIN = "ACE-ALA-NME", 300.0
# The grid of the committed record.
CONFIG = ReferenceConfig(
    num_phi=16,
    num_psi=16,
    phi_stiffness_kj_mol=30.0,
    psi_stiffness_kj_mol=30.0,
    positions_interval_ps=10.0,
)
WINDOWS = CONFIG.windows(TEMPERATURE_KELVIN)
BLOCK_PS = 10.0
MAX_STDERR_KT, MAX_DIFFERENCE_KT = 0.03, 0.05
RECORD = "reference_ace-ala-nme_amber14-obc1_300K"
app = typer.Typer(add_completion=False, help=__doc__)


@app.command()
def run(
    seed: Annotated[int, typer.Option(help="Of the starts and the noise.")],
    folder: Annotated[Path, typer.Option(help="Where the runs lie.")],
    minutes: Annotated[float, typer.Option(help="Wall time after which to stop.")],
) -> None:
    """Sample one run in blocks until the time is over."""
    torch.set_num_threads(1)
    stop = time.monotonic() + 60 * minutes
    molecule = Molecule.from_sequence(SEQUENCE)
    system = build_system(molecule, DEFAULT_FORCE_FIELD)
    force_field = ForceField.from_system(system, TEMPERATURE_KELVIN, dtype=torch.float32)
    sampler = UmbrellaSampler(force_field.compiled(len(WINDOWS)), molecule, CONFIG, seed)
    blocks = sorted((folder / f"seed{seed}").glob("block*.npz"))
    if blocks:
        with np.load(blocks[-1]) as last:
            sampler.restore({name[6:]: last[name] for name in last if name.startswith("state_")})
    else:
        sampler.start()
        sampler.flatten()
        sampler.advance(CONFIG.equilibration_ps)
    number = len(blocks)
    while time.monotonic() < stop:
        samples = sampler.advance(BLOCK_PS)
        state = {f"state_{name}": value for name, value in sampler.state().items()}
        angles = {"phi": samples.phi, "psi": samples.psi, "window": samples.window}
        path = folder / f"seed{seed}" / f"block{number:05d}.npz"
        with atomic_path(path) as part, part.open("wb") as stream:
            np.savez(
                stream, seconds=samples.seconds, acceptance=samples.acceptance, **angles, **state
            )
        number += 1
        nanoseconds = number * BLOCK_PS * len(WINDOWS) * 1e-3
        print(f"seed {seed}: {nanoseconds:.1f} ns, swaps accepted {samples.acceptance}", flush=True)


@app.command()
def analyse(
    folder: Annotated[Path, typer.Option(help="Where the runs lie.")],
    discard_ps: Annotated[float, typer.Option(help="Equilibration to drop, per chain.")] = 50.0,
    num_blocks: Annotated[int, typer.Option(help="Blocks in time of each run.")] = 10,
    write: Annotated[bool, typer.Option("--write", help="Write record and reference.")] = False,
) -> None:
    """Estimate delta_f from the runs and judge whether they have converged."""
    folders = sorted(folder.glob("seed*/"))
    runs = [_load(path, discard_ps) for path in folders]
    reference = estimate_reference(
        runs, num_blocks=num_blocks, max_stderr_kT=MAX_STDERR_KT, max_samples=200_000
    )
    difference = float(np.ptp(reference.replica_delta_f_kT))
    system = {
        "name": SEQUENCE,
        "molecule": Molecule.from_sequence(SEQUENCE).identity,
        "force_field": list(DEFAULT_FORCE_FIELD),
        "temperature_kelvin": TEMPERATURE_KELVIN,
        "state_phi": list(POSITIVE_PHI.interval),
    }
    result = {"delta_f_kT": reference.delta_f_kT, "stderr_kT": reference.stderr_kT}
    numbers = system | result | {
        "converged": reference.converged and difference <= MAX_DIFFERENCE_KT,
        "reason": reference.reason,
        "largest_difference_kT": difference,
        "trend_p_value": reference.trend_p_value,
        "halves_p_value": reference.halves_p_value,
        "replica_delta_f_kT": reference.replica_delta_f_kT.tolist(),
        "agreement_p_value": reference.agreement_p_value,
        "runs": [
            _summary(path, run, blocks)
            for path, run, blocks in zip(folders, runs, reference.block_delta_f_kT, strict=True)
        ],
        "discarded_ps_per_chain": discard_ps,
        "settings": CONFIG.model_dump(),
        "commands": [line.strip() for line in (__doc__ or "").splitlines() if "python" in line],
    }  # fmt: skip
    publish(RECORD, numbers, ("torch", "openmm", "pymbar"), write=write)
    if write and numbers["converged"]:
        source = {"schema_version": SCHEMA_VERSION, "source": f"benchmarks/results/{RECORD}.json"}
        write_json(FOLDER / f"{RECORD.removeprefix('reference_')}.json", system | result | source)


def _load(folder: Path, discard_ps: float) -> UmbrellaSamples:
    """Read the blocks of one run after those to be dropped."""
    recorded: dict[str, list[np.ndarray]] = {
        name: [] for name in ("phi", "psi", "window", "common_bias")
    }
    seconds = 0.0
    for path in sorted(folder.glob("block*.npz"))[round(discard_ps / BLOCK_PS) :]:
        with np.load(path) as block:
            bias = FlatteningBias(block["state_flattening"])
            phi, psi = block["phi"], block["psi"]
            energy = bias.energy(phi.ravel(), psi.ravel()).reshape(phi.shape)
            for name, array in zip(recorded, (phi, psi, block["window"], energy), strict=True):
                recorded[name].append(array)
            acceptance = tuple(block["acceptance"].tolist())
            seconds += float(block["seconds"])
    return UmbrellaSamples(
        windows=WINDOWS,
        **{name: np.concatenate(arrays) for name, arrays in recorded.items()},
        positions_nm=np.empty((0, len(WINDOWS), 0, 3), dtype=np.float32),
        positions_stride=1,
        acceptance=acceptance,
        seconds=seconds,
    )


def _summary(folder: Path, run: UmbrellaSamples, blocks: np.ndarray) -> dict[str, Any]:
    return {
        "seed": int(folder.name.removeprefix("seed")),
        "delta_f_kT": blocks.mean(),
        "stderr_kT": blocks.std(ddof=1) / np.sqrt(len(blocks)),
        "block_delta_f_kT": blocks.tolist(),
        "trend_p_value": trend_p_value(blocks[None]),
        "nanoseconds": run.phi.size * CONFIG.interval_ps * 1e-3,
        "wall_seconds": run.seconds,
        "swaps_accepted": run.acceptance,
    }


if __name__ == "__main__":
    app()
