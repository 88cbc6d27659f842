"""Trajectories of others: what is read of them, what is refused, and the error of what they say."""

import logging
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from bnce_dist.chem.geometry import dihedral
from bnce_dist.chem.molecule import Molecule
from bnce_dist.chem.simulation.reference import ReferenceFreeEnergy
from bnce_dist.chem.simulation.trajectory import estimate_from_trajectory, read_trajectory
from bnce_dist.chem.state import State
from bnce_dist.chem.trajectory_file import write_frames, write_trajectory
from bnce_dist.core.errors import InputError

NUM_FRAMES = 120
STATE = (0.0, 2.0)


@pytest.fixture(scope="module")
def alanine() -> Molecule:
    return Molecule.from_sequence("ACE-ALA-NME")


@pytest.fixture
def positions(alanine: Molecule) -> np.ndarray:
    """Every atom jitters by 0.003 nm, so that bonds vibrate as they do at room temperature."""
    noise = np.random.default_rng(0).normal(scale=0.003, size=(NUM_FRAMES, 22, 3))
    return (alanine.positions_nm + noise).astype(np.float32)


def as_npz(path: Path, positions_nm: np.ndarray, **arrays: np.ndarray) -> Path:
    np.savez(path, positions_nm=positions_nm, **arrays)
    return path


@pytest.mark.parametrize(("suffix", "rounding"), [(".dcd", 1e-6), (".pdb", 1e-4), (".xtc", 1e-3)])
def test_frames_are_read_as_they_were_written(
    alanine: Molecule, positions: np.ndarray, tmp_path: Path, suffix: str, rounding: float
) -> None:
    path = tmp_path / f"own{suffix}"
    write_trajectory(path, alanine, positions)
    shouted = path.rename(tmp_path / f"OWN{suffix.upper()}")
    write_trajectory(path, alanine, positions)
    for written in (path, shouted):
        read = read_trajectory(written, alanine, 300.0)
        np.testing.assert_allclose(read.positions_nm, positions, atol=rounding)
        assert not read.log_weights.any()


@pytest.mark.parametrize("suffix", [".dcd", ".pdb", ".xtc"])
def test_folders_and_files_have_names_in_any_letters(
    alanine: Molecule, positions: np.ndarray, tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / "Müller 分子" / f"läufe{suffix}"
    write_trajectory(path, alanine, positions)
    read = read_trajectory(path, alanine, 300.0)
    np.testing.assert_allclose(read.positions_nm, positions, atol=1e-3)
    write_frames(path, alanine, [positions[::-1], positions])
    read = read_trajectory(path, alanine, 300.0)
    np.testing.assert_allclose(read.positions_nm[-NUM_FRAMES:], positions, atol=1e-3)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_stride_keeps_frames_and_their_weights(
    alanine: Molecule, positions: np.ndarray, tmp_path: Path
) -> None:
    twice = np.concatenate([positions, positions])
    weights = np.linspace(-1, 1, len(twice))
    path = as_npz(tmp_path / "biased.npz", twice, log_weights=weights)
    read = read_trajectory(path, alanine, 300.0, stride=2)
    np.testing.assert_array_equal(read.positions_nm, twice[::2])
    np.testing.assert_array_equal(read.log_weights, weights[::2])


def test_molecules_across_the_edge_of_a_box_are_made_whole(
    alanine: Molecule, positions: np.ndarray, tmp_path: Path
) -> None:
    import mdtraj

    box_nm = 3.0
    wrapped = (positions - positions.mean((0, 1))) % box_nm
    trajectory = mdtraj.Trajectory(
        wrapped,
        mdtraj.Topology.from_openmm(alanine.topology),
        unitcell_lengths=np.full((NUM_FRAMES, 3), box_nm),
        unitcell_angles=np.full((NUM_FRAMES, 3), 90.0),
    )
    trajectory.save_dcd(str(tmp_path / "box.dcd"))
    whole = torch.from_numpy(read_trajectory(tmp_path / "box.dcd", alanine, 300.0).positions_nm)
    bonds = torch.tensor(alanine.bonds)
    lengths = (whole[:, bonds[:, 0]] - whole[:, bonds[:, 1]]).norm(dim=2)
    assert lengths.max() < 0.2
    expected = dihedral(torch.from_numpy(positions), alanine.phi)
    torch.testing.assert_close(dihedral(whole, alanine.phi), expected, rtol=0, atol=1e-3)


def test_constrained_hydrogens_get_their_vibration_back(
    alanine: Molecule, positions: np.ndarray, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    constrained = torch.from_numpy(positions).double()
    hydrogens = [
        tuple(sorted(bond, key=lambda atom: alanine.elements[atom] == "H"))
        for bond in alanine.bonds
        if "H" in (alanine.elements[bond[0]], alanine.elements[bond[1]])
    ]
    for heavy, hydrogen in hydrogens:
        along = constrained[:, hydrogen] - constrained[:, heavy]
        unit = along / along.norm(dim=1, keepdim=True)
        constrained[:, hydrogen] = constrained[:, heavy] + 0.109 * unit
    repeated = constrained.repeat(20, 1, 1).numpy()
    path = as_npz(tmp_path / "shake.npz", repeated)
    with caplog.at_level(logging.WARNING):
        read = torch.from_numpy(read_trajectory(path, alanine, 300.0).positions_nm).double()
    assert f"{len(hydrogens)} constrained bonds" in caplog.text
    for heavy, hydrogen in hydrogens:
        lengths = (read[:, hydrogen] - read[:, heavy]).norm(dim=1)
        # A harmonic bond of k = 284,512 kJ/mol/nm^2, C-H in Amber, or 363,171, N-H.
        stiffness = 284_512 if alanine.elements[heavy] == "C" else 363_171
        assert lengths.std() == pytest.approx(math.sqrt(2.494 / stiffness), rel=0.1)
        assert lengths.mean() == pytest.approx(0.109, abs=2e-4)


def mirrored(positions: np.ndarray) -> np.ndarray:
    return positions * np.array([-1, 1, 1], dtype=np.float32)


def with_nan(positions: np.ndarray) -> np.ndarray:
    spoilt = positions.copy()
    spoilt[7, 3, 1] = np.nan
    return spoilt


def with_frozen_backbone(positions: np.ndarray) -> np.ndarray:
    return np.repeat(positions[:1], NUM_FRAMES, axis=0)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda p: p * 10, "nanometres.*angstrom.*divide by 10"),
        (with_nan, "finite|NaN|not a number"),
        (lambda p: p[:1], "at least 100 frames, got 1"),
        (lambda p: p[:, :-1], "22"),
        (lambda p: p[:, ::-1].copy(), "order of atoms"),
        (mirrored, "frames of the mirror image"),
        (with_frozen_backbone, "heavy atoms that vibrate"),
    ],
)
def test_what_cannot_be_used_is_one_line(
    alanine: Molecule,
    positions: np.ndarray,
    tmp_path: Path,
    change: Callable[[np.ndarray], np.ndarray],
    line: str,
) -> None:
    path = as_npz(tmp_path / "own.npz", change(positions))
    with pytest.raises(InputError, match=line) as caught:
        read_trajectory(path, alanine, 300.0)
    assert "\n" not in str(caught.value)


def test_a_file_that_kills_its_reader_is_one_line(
    alanine: Molecule, positions: np.ndarray, tmp_path: Path
) -> None:
    path = tmp_path / "own.xtc"
    write_trajectory(path, alanine, positions)
    content = bytearray(path.read_bytes())
    # The length of the first frame's compressed coordinates, which mdtraj believes.
    content[88:92] = (10**6).to_bytes(4, "big")
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"own\.xtc.*a file that ends its reader \(SIGSEGV\)"):
        read_trajectory(path, alanine, 300.0)


def test_files_that_are_none_are_one_line(
    alanine: Molecule, positions: np.ndarray, tmp_path: Path
) -> None:
    whole = tmp_path / "own.dcd"
    write_trajectory(whole, alanine, positions)
    (tmp_path / "torn.dcd").write_bytes(whole.read_bytes()[:50])
    (tmp_path / "text.xtc").write_text("no trajectory")
    as_npz(tmp_path / "short.npz", positions, log_weights=np.zeros(3))
    nothing = np.full(len(positions), -np.inf)
    as_npz(tmp_path / "nothing.npz", positions, log_weights=nothing)
    as_npz(
        tmp_path / "one.npz", positions, log_weights=np.where(np.arange(len(positions)), nothing, 0)
    )
    np.savez(tmp_path / "other.npz", x=positions)
    npz = ("short.npz", "other.npz", "nothing.npz", "one.npz")
    for name in ("absent.dcd", "torn.dcd", "text.xtc", *npz):
        with pytest.raises(InputError, match=name.replace(".", r"\.")):
            read_trajectory(tmp_path / name, alanine, 300.0)
    with pytest.raises(InputError, match="got no array positions_nm, but x;"):
        read_trajectory(tmp_path / "other.npz", alanine, 300.0)
    with pytest.raises(InputError, match=r"the nearest is \.xtc"):
        read_trajectory(tmp_path / "own.xtcc", alanine, 300.0)
    # MDTraj reads these with a package that is not installed.
    with pytest.raises(InputError, match=r"kind of trajectory .*own\.h5: expected one of \.dcd"):
        read_trajectory(tmp_path / "own.h5", alanine, 300.0)


def hops(seed: int, num_frames: int = 40_000) -> np.ndarray:
    """A two-state chain: it leaves the state at a rate of 0.02, and enters it at 0.005."""
    random = np.random.default_rng(seed)
    dwell = np.ravel(np.column_stack([random.geometric(0.005, 2000), random.geometric(0.02, 2000)]))
    return np.repeat(np.tile([-1.0, 1.0], 2000), dwell)[:num_frames]


def estimate(
    phi: np.ndarray, log_weights: np.ndarray | None = None, blocks: int = 5
) -> ReferenceFreeEnergy:
    return estimate_from_trajectory(
        phi, phi, np.zeros(len(phi)) if log_weights is None else log_weights,
        state=State.from_interval(*STATE), num_blocks=blocks, max_stderr_kT=0.3,
    )  # fmt: skip


def test_error_and_interval_of_a_correlated_trajectory() -> None:
    truth = math.log(0.02 / 0.005)
    results = [estimate(hops(seed)) for seed in range(100)]
    values = np.array([result.delta_f_kT for result in results])
    stderrs = np.array([result.stderr_kT for result in results])
    assert abs(values.mean() - truth) < 4 * values.std() / 10
    assert stderrs.mean() == pytest.approx(values.std(), rel=0.25)
    covering = [low <= truth <= high for low, high in (result.interval_kT for result in results)]
    assert np.mean(covering) > 0.87
    assert np.mean([result.converged for result in results]) > 0.85


def test_weights_undo_the_bias_of_a_trajectory() -> None:
    phi = hops(0)
    biased = estimate(phi, np.where(phi > 0, -2.0, 0.0))
    plain = estimate(phi)
    assert biased.delta_f_kT == pytest.approx(plain.delta_f_kT + 2.0, abs=1e-9)
    assert biased.stderr_kT == pytest.approx(plain.stderr_kT, rel=0.05)


def test_a_trajectory_that_hardly_left_is_no_converged_reference() -> None:
    phi = np.full(1000, -1.0)
    phi[:40] = 1.0
    result = estimate(phi)
    assert not result.converged
    assert "equilibrate longer" in result.reason
    with pytest.raises(InputError, match="one side empty"):
        estimate(np.full(1000, -1.0))


def test_two_blocks_have_no_trend_to_test() -> None:
    with pytest.raises(InputError, match=r"reference\.num_blocks: expected at least 3.*got 2"):
        estimate(hops(0), blocks=2)
    assert estimate(hops(0), blocks=4).trend_p_value > 0
