"""Internal coordinates against mdtraj, autograd Jacobians and what geometry demands."""

import copy
import io
import math
from functools import cache

import mdtraj
import numpy as np
import pytest
import torch
from torch import Tensor

from bnce_dist.chem.coordinates import Coordinates, WhitenedInternal, ZMatrix, from_state
from bnce_dist.chem.geometry import signed_volume
from bnce_dist.chem.molecule import Molecule
from bnce_dist.core.errors import InputError
from bnce_dist.core.path import wrap_angle
from bnce_dist.core.random import generator

OMEGAS = ((1, 4, 6, 8), (18, 16, 14, 8))
MIRROR = torch.tensor([1.0, 1.0, -1.0], dtype=torch.float64)


@cache
def build(sequence: str) -> Molecule:
    return Molecule.from_sequence(sequence)


def thermal_positions(molecule: Molecule, num_samples: int) -> Tensor:
    """Positions with thermal-looking stiff coordinates and uniform torsions, moved at random."""
    random = generator("thermal", molecule.name)
    minimum = torch.tensor(molecule.positions_nm, dtype=torch.float64)
    shape = (num_samples, molecule.num_atoms, 3)
    noise = 0.004 * torch.randn(shape, generator=random, dtype=torch.float64)
    coordinates = plain_coordinates(molecule)
    z = coordinates.encode(minimum + noise)[0]
    free = torch.rand((num_samples, coordinates.num_circular), generator=random)
    z[:, coordinates.num_euclidean :] = (2 * free.double() - 1) * math.pi
    positions = coordinates.decode(z)[0]
    return rotated(positions, random) + torch.randn((num_samples, 1, 3), generator=random).double()


def plain_coordinates(molecule: Molecule) -> WhitenedInternal:
    """Coordinates whose Euclidean block is the bonds, angles and narrow torsions themselves."""
    zmatrix = ZMatrix.from_graph(molecule.elements, molecule.bonds)
    identity = torch.eye(len(zmatrix.stiff), dtype=torch.float64)
    return WhitenedInternal(zmatrix, mean=identity[0] * 0, unwhitening=identity)


def rotated(positions: Tensor, random: torch.Generator) -> Tensor:
    matrices = torch.randn((len(positions), 3, 3), generator=random, dtype=torch.float64)
    rotations = torch.linalg.qr(matrices)[0]
    rotations = rotations * torch.linalg.det(rotations)[:, None, None]
    return positions @ rotations


def distances(positions: Tensor) -> Tensor:
    return (positions[:, :, None] - positions[:, None]).norm(dim=-1)


@pytest.fixture(scope="module")
def molecule() -> Molecule:
    return build("ACE-ALA-NME")


@pytest.fixture(scope="module")
def positions(molecule) -> Tensor:
    return thermal_positions(molecule, 400)


@pytest.fixture(scope="module")
def coordinates(molecule, positions) -> WhitenedInternal:
    return WhitenedInternal.fit(ZMatrix.from_graph(molecule.elements, molecule.bonds), positions)


def test_values_are_the_ones_mdtraj_measures(molecule, positions):
    coordinates = plain_coordinates(molecule)
    z, _ = coordinates.encode(positions)
    stiff = coordinates.zmatrix.stiff
    trajectory = mdtraj.Trajectory(positions.numpy(), topology=None)
    measured = [
        mdtraj.compute_distances(trajectory, [atoms for atoms in stiff if len(atoms) == 2]),
        mdtraj.compute_angles(trajectory, [atoms for atoms in stiff if len(atoms) == 3]),
        mdtraj.compute_dihedrals(
            trajectory,
            [atoms for atoms in stiff if len(atoms) == 4] + list(coordinates.circular_torsions),
        ),
    ]
    difference = wrap_angle(z - torch.tensor(np.concatenate(measured, axis=1), dtype=torch.float64))
    assert difference.abs().max() < 2e-4  # mdtraj works in float32.


@pytest.mark.parametrize("sequence", ["ACE-ALA-NME", "AC", "ACE-ALA-GLY-NME", "ACE-PRO-NME", "NY"])
def test_decode_inverts_encode(sequence):
    molecule = build(sequence)
    positions = thermal_positions(molecule, 200)
    zmatrix = ZMatrix.from_graph(molecule.elements, molecule.bonds)
    coordinates = WhitenedInternal.fit(zmatrix, positions)
    z, log_det = coordinates.encode(positions)
    decoded, log_det_decode = coordinates.decode(z)
    assert (distances(decoded) - distances(positions)).abs().max() < 1e-12
    for centre in molecule.chirality_centres:
        assert (signed_volume(decoded, centre) * signed_volume(positions, centre) > 0).all()
    assert (log_det + log_det_decode).abs().max() < 1e-10
    assert coordinates.validity(z).all()
    assert (coordinates.encode(decoded)[0] - z).abs().max() < 1e-9


@pytest.mark.parametrize("sequence", ["ACE-ALA-NME", "AC"])
def test_log_det_of_decode_is_that_of_the_autograd_jacobian(sequence):
    """All 3N columns: z, and an infinitesimal rigid motion, whose volume element is one."""
    molecule = build(sequence)
    positions = thermal_positions(molecule, 200)
    coordinates = WhitenedInternal.fit(
        ZMatrix.from_graph(molecule.elements, molecule.bonds), positions
    )
    for z in coordinates.encode(positions)[0][:3]:

        def moved(z: Tensor, shift: Tensor, turn: Tensor) -> Tensor:
            body = coordinates.decode(z[None])[0][0]
            return (body + shift + torch.linalg.cross(turn.expand_as(body), body)).flatten()

        still = torch.zeros(3, dtype=torch.float64)
        columns = torch.autograd.functional.jacobian(moved, (z, still, still))
        expected = torch.linalg.slogdet(torch.cat(columns, dim=1)).logabsdet
        assert float(coordinates.decode(z[None])[1]) == pytest.approx(float(expected), abs=1e-8)


def test_log_det_of_encode_is_that_of_the_autograd_jacobian(coordinates, positions):
    """Three atoms held in their frame: the other coordinates times the frame's known element."""
    first, centre, second = (row[0] for row in coordinates.zmatrix.rows[:3])
    for sample in coordinates.decode(coordinates.encode(positions[:3])[0])[0]:
        # decode puts `first` at the origin, `centre` on the x axis and `second` in the xy plane.
        free = torch.ones(22, 3, dtype=torch.bool)
        free[first], free[centre, 1:], free[second, 2] = False, False, False

        def z_of_free(values: Tensor, sample=sample, free=free) -> Tensor:
            return coordinates.encode(sample.masked_scatter(free, values)[None])[0][0]

        jacobian = torch.autograd.functional.jacobian(z_of_free, sample[free])
        bond, arm = sample[centre] - sample[first], sample[second] - sample[centre]
        # b1^2 b2^2 sin(theta) in all, of which the plane itself accounts for b2.
        frame = bond.norm() * torch.linalg.cross(bond, arm).norm()
        expected = torch.linalg.slogdet(jacobian).logabsdet - frame.log()
        log_det = coordinates.encode(sample[None])[1]
        assert float(log_det) == pytest.approx(float(expected), abs=1e-8)


def test_rigid_motion_changes_nothing(coordinates, positions):
    moved = rotated(positions, generator("rotation")) + 3.0
    z, log_det = coordinates.encode(positions)
    z_moved, log_det_moved = coordinates.encode(moved)
    assert (z_moved - z).abs().max() < 1e-8
    assert (log_det_moved - log_det).abs().max() < 1e-10


def test_a_mirror_flips_every_torsion_and_only_those(molecule, coordinates, positions):
    plain = plain_coordinates(molecule)
    z, log_det = plain.encode(positions)
    z_mirror, log_det_mirror = plain.encode(positions * MIRROR)
    num_linear = 21 + 20
    assert (z_mirror[:, :num_linear] - z[:, :num_linear]).abs().max() < 1e-10
    assert wrap_angle(z_mirror[:, num_linear:] + z[:, num_linear:]).abs().max() < 1e-8
    assert (log_det_mirror - log_det).abs().max() < 1e-10
    # The L residue the coordinates were fitted to is far away.
    far = coordinates.encode(positions * MIRROR)[0][:, : coordinates.num_euclidean].abs()
    assert far.max(dim=1).values.min() > 10


def test_samples_of_the_prior_are_l_amino_acids(molecule, coordinates):
    z = torch.randn((2000, coordinates.dim), generator=generator("prior"), dtype=torch.float64)
    volume = signed_volume(coordinates.decode(z)[0], molecule.chirality_centres[0])
    assert coordinates.validity(z).all()
    assert (volume > 0).all()


def test_omega_does_not_notice_the_seam(molecule, coordinates, positions):
    plain = plain_coordinates(molecule)
    z = plain.encode(positions)[0]
    for omega in OMEGAS:
        column = plain.zmatrix.stiff.index(omega)
        assert (z[:, column] > 3).any()
        assert (z[:, column] < -3).any()  # The data do straddle the seam.
        pair = z[:2].clone()
        pair[1] = pair[0]
        pair[:, column] = torch.tensor([math.pi - 1e-4, -math.pi + 1e-4])
        left, right = coordinates.encode(plain.decode(pair)[0])[0]
        assert (left - right).abs().max() < 0.02  # 2e-4 rad, of a standard deviation of ~ 0.1


def test_the_training_set_becomes_white(coordinates, positions):
    white = coordinates.encode(positions)[0][:, : coordinates.num_euclidean]
    assert white.mean(0).abs().max() < 1e-10
    assert (white.T @ white / len(white) - torch.eye(55)).abs().max() < 1e-8
    assert 1 < coordinates.condition_number < 1e4


def test_weights_count_like_repeated_samples(coordinates, positions):
    counts = torch.arange(len(positions)) % 3
    weighted = WhitenedInternal.fit(coordinates.zmatrix, positions, weights=7.0 * counts)
    repeated = WhitenedInternal.fit(coordinates.zmatrix, positions.repeat_interleave(counts, dim=0))
    torch.testing.assert_close(weighted.mean, repeated.mean)
    torch.testing.assert_close(weighted.unwhitening, repeated.unwhitening)


def test_a_stray_mirrored_sample_leaves_the_whitening_alone(coordinates, positions):
    stray = torch.cat((positions, positions[:2] * MIRROR))
    fitted = WhitenedInternal.fit(coordinates.zmatrix, stray)
    torch.testing.assert_close(fitted.mean, coordinates.mean, atol=1e-10, rtol=0)
    torch.testing.assert_close(fitted.unwhitening, coordinates.unwhitening, atol=1e-10, rtol=0)


def broken(z: Tensor, coordinates: WhitenedInternal, column: int, value: float) -> Tensor:
    """Return z with one internal coordinate set to a value, the others kept."""
    stiff = coordinates.mean + z[: coordinates.num_euclidean] @ coordinates.unwhitening.T
    stiff[column] = value
    white = (stiff - coordinates.mean) @ coordinates.whitening.T
    return torch.cat((white, z[coordinates.num_euclidean :]))


def test_vectors_of_no_molecule_are_flagged_and_stay_finite(coordinates, positions):
    z = coordinates.encode(positions[:10])[0]
    nan, infinite, huge, infinite_torsion = z[0].clone(), z[0].clone(), z[0].clone(), z[0].clone()
    nan[3], infinite[3], huge[3], infinite_torsion[-1] = math.nan, -math.inf, 1e300, math.inf
    num_linear = 41
    bad = torch.stack(
        [
            *(broken(z[0], coordinates, 5, bond) for bond in (0.0, -0.1, 11.0)),
            *(broken(z[0], coordinates, 30, angle) for angle in (0.0, -0.5, math.pi, 3.5)),
            broken(z[0], coordinates, num_linear, float(coordinates.mean[num_linear]) + 3.2),
            *(nan, infinite, huge, infinite_torsion),
        ]
    )
    mixed = torch.cat((z[:4], bad, z[4:]))
    valid = coordinates.validity(mixed)
    assert valid.tolist() == [True] * 4 + [False] * len(bad) + [True] * 6
    decoded, log_det = coordinates.decode(mixed)
    assert decoded.isfinite().all()
    assert log_det.isfinite().all()
    torch.testing.assert_close(decoded[valid], coordinates.decode(z)[0])
    assert copy.deepcopy(coordinates).float().validity(mixed).tolist() == valid.tolist()


def test_float32_agrees_with_float64(coordinates, positions):
    single = copy.deepcopy(coordinates).float()
    z, log_det = coordinates.encode(positions)
    z_single, log_det_single = single.encode(positions)
    centred = coordinates.encode(positions - positions.mean(1, keepdim=True))[0]
    assert z_single.dtype == log_det_single.dtype == torch.float32
    assert (z - centred).abs().max() < 1e-8
    assert wrap_angle(z_single - z).abs().max() < 2e-3  # Positions are several nm from the origin.
    assert (log_det_single - log_det).abs().max() < 2e-3
    decoded, _ = single.decode(z_single)
    assert decoded.dtype == torch.float32
    assert (distances(decoded) - distances(positions)).abs().max() < 2e-6


def test_gradients_flow_through_decode(coordinates, positions):
    z = coordinates.encode(positions[:2])[0].requires_grad_()
    assert torch.autograd.gradcheck(lambda z: coordinates.decode(z), (z,))


@pytest.mark.parametrize("sequence", ["ACE-ALA-NME", "KS", "NY", "ACE-PRO-NME"])
def test_pull_back_is_the_gradient_that_autograd_finds(sequence):
    """Of any function of positions, also one that knows where the molecule lies."""
    molecule = build(sequence)
    positions = thermal_positions(molecule, 200)
    coordinates = WhitenedInternal.fit(
        ZMatrix.from_graph(molecule.elements, molecule.bonds), positions
    )
    z = coordinates.encode(positions)[0][:50]
    decoded = coordinates.decode(z)[0]
    random = generator("covector")
    gradient = 1000 * torch.randn(decoded.shape, generator=random, dtype=torch.float64)
    expected = Coordinates.pull_back(coordinates, z, decoded, gradient)
    analytic = coordinates.pull_back(z, decoded, gradient)
    assert (analytic - expected).abs().max() < 1e-12 * expected.abs().max()
    single = copy.deepcopy(coordinates).float()
    z_single = z.float()
    analytic = single.pull_back(z_single, single.decode(z_single)[0], gradient.float())
    relative = (analytic - expected).norm(dim=1) / expected.norm(dim=1)
    assert relative.max() < 1e-4


def test_pull_back_is_zero_where_decode_holds_a_coordinate_back(coordinates, positions):
    z = coordinates.encode(positions[:4])[0]
    z[0] = broken(z[0], coordinates, 5, -0.1)
    z[1] = broken(z[1], coordinates, 30, 3.5)
    z[2, -1] = math.inf
    z[3, 3] = math.nan
    decoded = coordinates.decode(z)[0]
    gradient = torch.ones_like(decoded)
    analytic = coordinates.pull_back(z, decoded, gradient)
    torch.testing.assert_close(
        analytic, Coordinates.pull_back(coordinates, z, decoded, gradient).nan_to_num(0.0)
    )
    assert analytic[2, -1] == 0


def test_the_state_is_plain_and_rebuilds_the_same_map(coordinates, positions):
    buffer = io.BytesIO()
    torch.save(coordinates.to_state(), buffer)
    buffer.seek(0)
    rebuilt = from_state(torch.load(buffer, weights_only=True))
    assert not list(rebuilt.parameters())
    for mine, theirs in zip(coordinates.encode(positions), rebuilt.encode(positions), strict=True):
        assert mine.equal(theirs)
    with pytest.raises(InputError, match="kind of coordinates"):
        from_state({"kind": "Spherical"})


def test_positions_that_cannot_be_encoded_are_named(coordinates, positions):
    def spoilt(sample: int, atom: int, value: Tensor) -> Tensor:
        copied = positions.clone()
        copied[sample, atom] = value
        return copied

    with pytest.raises(InputError, match=r"expected \(batch, 22, 3\), got \(400, 21, 3\)"):
        coordinates.encode(positions[:, 1:])
    with pytest.raises(InputError, match="atom 4 of sample 7"):
        coordinates.encode(spoilt(7, 4, torch.tensor(math.nan)))
    with pytest.raises(InputError, match=r"0 for atoms \(5, 4\) of sample 9"):
        coordinates.encode(spoilt(9, 5, positions[9, 4]))
    on_a_line = 2 * positions[11, 4] - positions[11, 6]
    with pytest.raises(InputError, match=r"3\.14 for atoms \(1, 4, 6\) of sample 11"):
        coordinates.encode(spoilt(11, 1, on_a_line))
    with pytest.raises(InputError, match=r"expected \(batch, 60\)"):
        coordinates.decode(torch.zeros(2, 59))


def test_training_sets_that_cannot_be_whitened_are_refused(molecule, coordinates, positions):
    zmatrix = coordinates.zmatrix
    with pytest.raises(InputError, match="more than the 55 stiff coordinates, got 55"):
        WhitenedInternal.fit(zmatrix, positions[:55])
    for share in (0.02, 0.3, 0.35, 0.5):
        mirrored = positions.clone()
        mirrored[: int(share * len(positions))] *= MIRROR
        with pytest.raises(InputError, match="mirrored molecules or cis"):
            WhitenedInternal.fit(zmatrix, mirrored)
    frozen = plain_coordinates(molecule)
    z = frozen.encode(positions)[0]
    z[:, 3] = 0.1
    with pytest.raises(InputError, match="simulate without constraints"):
        WhitenedInternal.fit(zmatrix, frozen.decode(z)[0])
    for weights in (torch.ones(3), torch.zeros(400), -torch.ones(400), torch.full((400,), np.nan)):
        with pytest.raises(InputError, match="weights: expected 400 finite"):
            WhitenedInternal.fit(zmatrix, positions, weights=weights)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_wrap_stays_in_its_interval(dtype):
    angle = torch.tensor([math.pi, -math.pi, 3 * math.pi, 0.5, -0.5, 7.0, -1e-30], dtype=dtype)
    wrapped = wrap_angle(torch.cat((angle, torch.linspace(-20, 20, 4001, dtype=dtype))))
    assert wrapped[:2].tolist() == pytest.approx([math.pi, math.pi])
    assert wrapped[3:5].tolist() == pytest.approx([0.5, -0.5])
    assert (wrapped > -math.pi).all()
    assert (wrapped <= torch.tensor(math.pi, dtype=dtype)).all()
