"""The long reference free energy of alanine dipeptide: independent umbrella runs, then a verdict.

Each run is one process on one thread and goes on where it was interrupted; start them side by
side, then analyse them together:

    python benchmarks/reference.py run --seed 0 --folder runs/reference --minutes 25
    python benchmarks/reference.py run --seed 1 --folder runs/reference --minutes 25
    python benchmarks/reference.py analyse --folder runs/reference --write
"""

import time
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

from bnce_dist.chem.force_field import DEFAULT_FORCE_FIELD, ForceField, build_system
from bnce_dist.chem.molecule import Molecule
from bnce_dist.chem.umbrella import UmbrellaSampler
from bnce_dist.chem.umbrella_settings import UmbrellaSettings
from bnce_dist.data.atomic import atomic_path

SEQUENCE, TEMPERATURE_KELVIN = "ACE-ALA-NME", 300.0
SETTINGS = UmbrellaSettings(positions_interval_ps=10.0)
BLOCK_PS = 10.0
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
    sampler = UmbrellaSampler(
        force_field.compiled(SETTINGS.num_windows), molecule, SETTINGS, seed
    )
    blocks = sorted((folder / f"seed{seed}").glob("block*.npz"))
    if blocks:
        with np.load(blocks[-1]) as last:
            sampler.restore({name[6:]: last[name] for name in last if name.startswith("state_")})
    else:
        sampler.start()
        sampler.flatten()
        sampler.advance(SETTINGS.equilibration_ps)
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
        nanoseconds = number * BLOCK_PS * SETTINGS.num_windows * 1e-3
        print(f"seed {seed}: {nanoseconds:.1f} ns, swaps accepted {samples.acceptance}", flush=True)


@app.command()
def analyse(
    folder: Annotated[Path, typer.Option(help="Where the runs lie.")],
    write: Annotated[bool, typer.Option(help="Write the record and the reference.")] = False,
) -> None:
    """Estimate delta_f from every run alone and from all together, and judge convergence."""
    runs = [_load(path) for path in sorted(folder.glob("seed*"))]
    for samples in runs:
        print(samples.seed, samples.phi.shape)


if __name__ == "__main__":
    app()
