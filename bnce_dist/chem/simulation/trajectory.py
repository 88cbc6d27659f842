"""Trajectories that somebody else has made, as training data and as the reference."""

import logging
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import mdtraj
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import stdtrit

from bnce_dist.chem.molecule import Molecule
from bnce_dist.chem.simulation.mbar import statistical_inefficiency
from bnce_dist.chem.simulation.reference import (
    ReferenceFreeEnergy,
    convergence,
    halves_p_value,
    trend_p_value,
)
from bnce_dist.chem.state import State
from bnce_dist.chem.trajectory_file import ascii_path
from bnce_dist.chem.validation import relabel_hydrogens, require_molecules, validate
from bnce_dist.core.errors import InputError, as_input_error
from bnce_dist.core.free_energy import log_weight_difference
from bnce_dist.core.random import generator
from bnce_dist.core.weights import Weights

logger = logging.getLogger(__name__)

SUFFIXES = (".dcd", ".xtc", ".trr", ".nc", ".netcdf", ".pdb", ".npz")
_READ_BY_C = (".dcd", ".xtc", ".trr")
_READER = """
import pathlib
import sys

import mdtraj
import numpy

path, arrays, num_atoms = sys.argv[1:]
topology = mdtraj.Topology()
residue = topology.add_residue("MOL", topology.add_chain())
for _ in range(int(num_atoms)):
    topology.add_atom("C", mdtraj.element.carbon, residue)
load = mdtraj.FormatRegistry.loaders[pathlib.Path(path).suffix.lower()]
trajectory = load(path, top=topology)
vectors = trajectory.unitcell_vectors
numpy.savez(arrays, xyz=trajectory.xyz, vectors=[] if vectors is None else vectors)
"""
MIN_FRAMES = 100
"""Fewer say nothing of a distribution."""
MIN_EFFECTIVE_FRAMES = 10.0
"""By weights that come with them."""
MIN_BLOCKS = 3
"""A line goes through any two."""
CONSTRAINED_NM = 0.001
"""Bonds that vary less were constrained; free ones vary by twice as much and more."""
_BOND_TO_HYDROGEN_NM = {"C": 0.0030, "N": 0.0026, "O": 0.0023, "S": 0.0033}
"""Thermal standard deviations at 300 K in Amber's force fields."""
MAX_INVALID = 0.01
"""Share of broken frames above which the file is of something else."""


@dataclass(frozen=True)
class Trajectory:
    """Frames of one molecule in the order of time.

    Args:
        positions_nm: ``(frames, atoms, 3)`` float32 [nm], whole and of the molecule's hand.
        log_weights: Of the unbiased ensemble, ``(frames,)``; zeros where the file has none.
    """

    positions_nm: NDArray[np.float32]
    log_weights: NDArray[np.float64]


def read_trajectory(
    path: Path, molecule: Molecule, temperature_kelvin: float, *, stride: int = 0
) -> Trajectory:
    """Read a trajectory, make its molecules whole and number their hydrogens as the molecule's.

    Bonds to hydrogens that were constrained get their thermal vibration, the same every time.

    Args:
        path: In a format of ``SUFFIXES``. An ``.npz`` holds ``positions_nm`` ``(frames, atoms, 3)``
            and, of a biased simulation, ``log_weights`` ``(frames,)``.
        molecule: What it must be of, in the same order of atoms.
        temperature_kelvin: That it was made at [K].
        stride: Every how many frames one is kept; 0 keeps all.

    Raises: InputError: absent, damaged, of another molecule or order, in angstrom, with numbers
        that are none, of the mirror image, or too short.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise InputError.unknown(f"kind of trajectory {path}", path.suffix, SUFFIXES)
    with as_input_error(partial(_unreadable, path)):
        positions, log_weights = (
            _read_npz(path) if path.suffix.lower() == ".npz" else _read_whole(path, molecule)
        )
    positions, log_weights = positions[:: stride or 1], log_weights[:: stride or 1]
    if len(positions) < MIN_FRAMES:
        raise InputError(
            f"trajectory {path}",
            expected=f"at least {MIN_FRAMES} frames",
            got=f"{len(positions)}" + (f" by a stride of {stride}" if stride > 1 else ""),
            remedy="name a longer one, or lower the stride",
        )
    frames = torch.from_numpy(positions).double()
    require_molecules(molecule, frames)
    checked = validate(molecule, frames)
    if checked.mirrored.any():
        raise _unreadable(path, f"{int(checked.mirrored.sum())} frames of the mirror image")
    num_invalid = int((~checked.valid).sum())
    if num_invalid > MAX_INVALID * len(frames):
        raise _unreadable(path, f"{num_invalid} of {len(frames)} frames with other bonds")
    if num_invalid:
        logger.warning("trajectory %s: %d broken frames are left out", path, num_invalid)
    kept = relabel_hydrogens(molecule, frames[checked.valid])
    kept = _with_vibrations(path, molecule, kept, temperature_kelvin)
    return Trajectory(kept.float().numpy(), log_weights[checked.valid.numpy()])


def estimate_from_trajectory(
    phi: NDArray[np.floating],
    psi: NDArray[np.floating],
    log_weights: NDArray[np.floating],
    *,
    state: State,
    num_blocks: int,
    max_stderr_kT: float,
) -> ReferenceFreeEnergy:
    r"""Estimate a free-energy difference from one trajectory, and judge whether it has converged.

    The error is that of a mean of correlated samples,

    .. math:: s^2 = g \sum_t \psi_t^2, \qquad
              \psi_t = w_t \left(\frac{1_{in}}{\sum_{in} w} - \frac{1_{out}}{\sum_{out} w}\right)

    with :math:`g` the statistical inefficiency of :math:`\psi`.

    Args:
        phi: ``(frames,)`` in the order of time, a multiple of the blocks [rad].
        psi: ``(frames,)`` [rad].
        log_weights: ``(frames,)`` [nats].
        state: Its free energy is estimated.
        num_blocks: Blocks in time whose agreement is tested.
        max_stderr_kT: Largest standard error that counts as converged [kT].

    Raises: InputError: no frame in the state, or none outside; too few blocks.
    Source: Chodera et al. (2007), J. Chem. Theory Comput. 3, 26, on the inefficiency.
    """
    if num_blocks < MIN_BLOCKS:
        raise InputError(
            "reference.num_blocks",
            expected=f"at least {MIN_BLOCKS} for a trajectory, whose trend is tested",
            got=num_blocks,
            remedy=f"give reference.num_blocks={MIN_BLOCKS} or more",
        )
    in_state = state.contains(phi, psi)
    if in_state.all() or not in_state.any():
        raise InputError(
            "trajectory of the reference",
            expected=f"frames in the state and outside, {state}",
            got="one side empty",
            remedy="name a longer trajectory, or let the run sample umbrellas (no "
            "reference.trajectory)",
        )
    weights = np.exp(log_weights - log_weights.max())
    influence = weights * np.where(
        in_state, 1 / weights[in_state].sum(), -1 / weights[~in_state].sum()
    )
    inefficiency = statistical_inefficiency(influence)
    stderr = float(np.sqrt(inefficiency * np.square(influence).sum()))
    freedom = max(1.0, len(phi) / inefficiency - 1)
    value = log_weight_difference(log_weights, in_state)
    blocks = np.array(
        [
            log_weight_difference(part, inside)
            for part, inside in zip(
                np.split(log_weights, num_blocks), np.split(in_state, num_blocks), strict=True
            )
        ]
    )
    visited = blocks[np.isfinite(blocks)][None]
    # A block that never saw one of the sides has its own way of saying "not converged".
    trend, halves = (
        (trend_p_value(visited), halves_p_value(visited))
        if visited.size == num_blocks
        else (0.0, 0.0)
    )
    converged, reason = convergence(stderr, trend, halves, 1.0, max_stderr_kT)
    reach = float(stdtrit(freedom, 0.975)) * stderr
    return ReferenceFreeEnergy(
        delta_f_kT=value,
        stderr_kT=stderr,
        interval_kT=(value - reach, value + reach),
        replica_delta_f_kT=np.array([value]),
        block_delta_f_kT=visited,
        trend_p_value=trend,
        halves_p_value=halves,
        agreement_p_value=1.0,
        converged=converged,
        reason=f"{reason}; statistical inefficiency {inefficiency:.1f} frames",
        phi=phi,
        psi=psi,
        log_weights=log_weights - float(np.log(weights.sum()) + log_weights.max()),
        replica=np.repeat(np.arange(num_blocks), len(phi) // num_blocks),
    )


def _read_npz(path: Path) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    with np.load(path, allow_pickle=False) as arrays:
        if "positions_nm" not in arrays:
            raise ValueError(f"no array positions_nm, but {', '.join(arrays) or 'none at all'}")
        positions = np.asarray(arrays["positions_nm"], dtype=np.float32)
        log_weights = np.asarray(
            arrays.get("log_weights", np.zeros(len(positions))), dtype=np.float64
        )
    if log_weights.shape != positions.shape[:1]:
        raise ValueError(f"log_weights of shape {log_weights.shape}")
    if np.isnan(log_weights).any() or np.isposinf(log_weights).any():
        raise ValueError("log_weights that are NaN or inf")
    if len(positions) < MIN_FRAMES:
        return positions, log_weights  # which is refused for that
    effective = 0.0 if np.isneginf(log_weights).all() else Weights(log_weights).ess
    if effective < MIN_EFFECTIVE_FRAMES:
        raise ValueError(f"log_weights by which {effective:.1f} of {len(positions)} frames count")
    return positions, log_weights


def _read_whole(path: Path, molecule: Molecule) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    topology = mdtraj.Topology.from_openmm(molecule.topology)
    suffix = path.suffix.lower()
    # Loaders are named by suffix because mdtraj.load knows small letters alone.
    read = _read_apart if suffix in _READ_BY_C else mdtraj.FormatRegistry.loaders[suffix]
    trajectory = read(path, top=topology)
    if trajectory.unitcell_lengths is not None:
        trajectory = trajectory.make_molecules_whole()
    if suffix == ".xtc":
        logger.info("trajectory %s: XTC rounds to 0.001 nm, half as much as a bond vibrates", path)
    return np.asarray(trajectory.xyz, dtype=np.float32), np.zeros(len(trajectory))


def _read_apart(path: Path, *, top: mdtraj.Topology) -> mdtraj.Trajectory:
    """Do as mdtraj's loaders in a process of its own, which a damaged file may end.

    Raises: InputError: it did, or the file cannot be read.
    """
    with tempfile.TemporaryDirectory() as folder, ascii_path(path) as opened:
        arrays = Path(folder) / "arrays.npz"
        places = [os.fspath(place) for place in (opened, arrays)]
        command = [sys.executable, "-c", _READER, *places, str(top.n_atoms)]
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", check=False
        )
        if done.returncode < 0:
            name = signal.Signals(-done.returncode).name
            raise _unreadable(path, f"a file that ends its reader ({name})")
        if done.returncode:
            raise _unreadable(path, (done.stderr.strip() or "nothing").splitlines()[-1])
        with np.load(arrays, allow_pickle=False) as content:
            trajectory = mdtraj.Trajectory(content["xyz"], top)
            if len(content["vectors"]):
                trajectory.unitcell_vectors = content["vectors"]
    return trajectory


def _with_vibrations(
    path: Path, molecule: Molecule, positions_nm: torch.Tensor, temperature_kelvin: float
) -> torch.Tensor:
    """Return the frames with every constrained bond to a hydrogen as long as warmth makes it."""
    first, second = torch.tensor(molecule.bonds).T
    vectors = positions_nm[:, first] - positions_nm[:, second]
    constrained = vectors.norm(dim=2).std(dim=0) < CONSTRAINED_NM
    if not constrained.any():
        return positions_nm
    moved, random = positions_nm.clone(), generator(0, "vibrations")
    for bond in constrained.nonzero()[:, 0].tolist():
        pair = molecule.bonds[bond]
        hydrogens = [atom for atom in pair if molecule.elements[atom] == "H"]
        if len(hydrogens) != 1:
            names = " and ".join(molecule.atom_names[atom] for atom in pair)
            raise InputError(
                f"trajectory {path}",
                expected="bonds between heavy atoms that vibrate",
                got=f"{names} at a constrained distance",
                remedy="simulate with constraints on bonds to hydrogens at most",
            )
        (hydrogen,) = hydrogens
        (heavy,) = set(pair) - {hydrogen}
        spread = _BOND_TO_HYDROGEN_NM.get(molecule.elements[heavy], 0.0030)
        spread *= (temperature_kelvin / 300.0) ** 0.5
        noise = torch.randn(len(moved), 1, generator=random, dtype=moved.dtype) * spread
        along = positions_nm[:, hydrogen] - positions_nm[:, heavy]
        moved[:, hydrogen] += noise * along / along.norm(dim=1, keepdim=True)
    logger.warning(
        "trajectory %s: %d constrained bonds to hydrogens are given their thermal vibration",
        path,
        int(constrained.sum()),
    )
    return moved


def _unreadable(path: Path, got: object) -> InputError:
    return InputError(
        f"trajectory {path}",
        expected="frames of the molecule, in nm and in its order of atoms",
        got=got,
        remedy="check the file; mdtraj must be able to load it with the molecule's topology",
    )
