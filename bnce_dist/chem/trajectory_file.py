"""Conformations in the formats of molecular viewers and analysis packages."""

import contextlib
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
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


@contextlib.contextmanager
def ascii_path(path: Path) -> Iterator[Path]:
    """Yield a path to a file that mdtraj's readers and writers in C can open: they need ASCII.

    Args:
        path: The file, in any letters.
    """
    if str(path).isascii():
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder) / f"frames{path.suffix}"
        link.symlink_to(path.absolute())
        yield link


@contextlib.contextmanager
def _whole_file(path: Path) -> Iterator[str]:
    """Yield the name under which mdtraj writes a file that replaces ``path`` once it is whole."""
    with atomic_path(path) as temporary:
        # XTC's writer removes what is there, which would be the link and not the file.
        temporary.unlink()
        with ascii_path(temporary) as opened:
            yield str(opened)


def write_trajectory(path: Path, molecule: Molecule, positions_nm: NDArray[np.floating]) -> None:
    """Write conformations to a trajectory file, atomically.

    Args:
        path: The file; its suffix, one of ``TRAJECTORY_WRITERS``, is the format.
        molecule: Gives the topology.
        positions_nm: ``(frames, atoms, 3)`` [nm].
    """
    trajectory = Trajectory(positions_nm, Topology.from_openmm(molecule.topology))
    with _whole_file(path) as file:
        TRAJECTORY_WRITERS[path.suffix](trajectory, file)


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
        _whole_file(path) as file,
        opened[path.suffix](file, "w", force_overwrite=True) as stream,
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
