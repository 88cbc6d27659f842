"""Conformations in the formats of molecular viewers and analysis packages."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from mdtraj import Topology, Trajectory
from numpy.typing import NDArray

from bnce_dist.chem.molecule import Molecule
from bnce_dist.data.atomic import atomic_path

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
