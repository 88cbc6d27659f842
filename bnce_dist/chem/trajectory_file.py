"""Conformations in the formats of molecular viewers and analysis packages."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
from mdtraj import Topology, Trajectory
from mdtraj.formats import DCDTrajectoryFile, PDBTrajectoryFile, XTCTrajectoryFile
from numpy.typing import NDArray

from bnce_dist.chem.molecule import Molecule
from bnce_dist.data.atomic import atomic_path

_ANGSTROM_PER_NM = 10

TRAJECTORY_WRITERS: Mapping[str, Callable[[Trajectory, str], None]] = {
    ".dcd": Trajectory.save_dcd,
    ".pdb": Trajectory.save_pdb,
    ".xtc": Trajectory.save_xtc,
}
"""By suffix. DCD is in single precision, PDB rounds to 0.0001 nm, XTC to 0.001 nm."""


def write_trajectory(path: Path, molecule: Molecule, positions_nm: NDArray[np.floating]) -> None:
    """Write conformations to a trajectory file, atomically.

    Args:
        path: The file; its suffix, one of ``TRAJECTORY_WRITERS``, is the format.
        molecule: Gives the topology.
        positions_nm: ``(frames, atoms, 3)`` [nm].
    """
    trajectory = Trajectory(positions_nm, Topology.from_openmm(molecule.topology))
    with atomic_path(path) as temporary:
        TRAJECTORY_WRITERS[path.suffix](trajectory, str(temporary))


def write_frames(path: Path, molecule: Molecule, parts: Iterable[NDArray[np.floating]]) -> None:
    """Write what `write_trajectory` would of many conformations, one part in memory at a time.

    Args:
        path: As there.
        molecule: As there.
        parts: Each ``(frames, atoms, 3)`` [nm]; more than one frame altogether.
    """
    topology = Topology.from_openmm(molecule.topology)
    opened = {".dcd": DCDTrajectoryFile, ".pdb": PDBTrajectoryFile, ".xtc": XTCTrajectoryFile}
    with (
        atomic_path(path) as temporary,
        opened[path.suffix](str(temporary), "w", force_overwrite=True) as stream,
    ):
        start = 0
        for part in parts:
            frames = np.asarray(part, dtype=np.float32)
            numbers = np.arange(start, start + len(frames))
            if path.suffix == ".xtc":
                stream.write(frames, time=numbers.astype(np.float32), step=numbers.astype(np.int32))
            elif path.suffix == ".dcd":
                stream.write(frames * _ANGSTROM_PER_NM)
            else:
                for number, frame in zip(numbers, frames, strict=True):
                    stream.write(frame * _ANGSTROM_PER_NM, topology, modelIndex=number)
            start += len(frames)
