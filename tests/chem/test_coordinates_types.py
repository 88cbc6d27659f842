"""Whitening by type: known statistics come back, and molecules nobody measured get coordinates."""

import math
import random
from dataclasses import replace
from functools import cache

import openmm
import pytest
import torch
from torch import Tensor

from bnce_dist.chem.coordinates import WhitenedInternal, ZMatrix
from bnce_dist.chem.coordinates.types import Blocks, StiffTypes, blocks_of, shared_zmatrix
from bnce_dist.chem.molecule import Molecule
from bnce_dist.chem.potentials.force_field import (
    BOLTZMANN_KJ_MOL_KELVIN,
    ForceField,
    build_system,
)
from bnce_dist.chem.potentials.rest import RestValues, rest_values
from bnce_dist.core.errors import InputError
from bnce_dist.core.path import wrap_angle
from bnce_dist.core.random import generator

TAUGHT, ASKED = ("AG", "GC", "SC"), "AC"
TEMPERATURE_KELVIN = 300.0


@cache
def build(sequence: str) -> Molecule:
    return Molecule.from_sequence(sequence)


@cache
def zmatrix_of(sequence: str) -> ZMatrix:
    return shared_zmatrix(build(sequence))


@cache
def rests(sequence: str) -> RestValues:
    system = build_system(build(sequence))
    return rest_values(ForceField.from_system(system, TEMPERATURE_KELVIN))


def relaxed(sequence: str) -> Tensor:
    positions = torch.from_numpy(build(sequence).positions_nm)[None]
    return WhitenedInternal.unwhitened(zmatrix_of(sequence)).encode(positions)[0][0]


@cache
def known_statistics(blocks: Blocks) -> dict[str, tuple[Tensor, Tensor]]:
    """A mean near the first molecule's relaxed structure and a random root, for every block."""
    known: dict[str, tuple[Tensor, Tensor]] = {}
    for sequence in (*TAUGHT, ASKED):
        for block in blocks_of(build(sequence), zmatrix_of(sequence), blocks):
            noise = generator("statistics", block.key)
            size = len(block.columns)
            root = 0.006 * torch.eye(size).double()
            root += 0.003 * torch.randn(size, size, generator=noise).double() / size
            known.setdefault(block.key, (relaxed(sequence)[list(block.columns)], root))
    return known


def frames(sequence: str, blocks: Blocks, num_frames: int = 4000) -> Tensor:
    """Draw molecules whose stiff coordinates have the known statistics, with free torsions."""
    plain = WhitenedInternal.unwhitened(zmatrix_of(sequence))
    noise = generator("frames", sequence)
    z = torch.empty(num_frames, plain.dim, dtype=torch.float64)
    for block in blocks_of(build(sequence), zmatrix_of(sequence), blocks):
        mean, root = known_statistics(blocks)[block.key]
        normal = torch.randn(num_frames, len(mean), generator=noise).double()
        z[:, list(block.columns)] = mean + normal @ root.T
    z[:, plain.num_euclidean :].uniform_(-math.pi, math.pi, generator=noise)
    return decoded(plain, z)


def decoded(plain: WhitenedInternal, z: Tensor) -> Tensor:
    """Return positions, with torsions brought into (-pi, pi], which plain coordinates ask for."""
    first_torsion = sum(plain.stiff_sizes[:2])
    return plain.decode(torch.cat([z[:, :first_torsion], wrap_angle(z[:, first_torsion:])], 1))[0]


def fitted(blocks: Blocks) -> StiffTypes:
    molecules = [build(sequence) for sequence in TAUGHT]
    return StiffTypes.fit(molecules, [frames(one, blocks) for one in TAUGHT], blocks)


@pytest.mark.parametrize("blocks", ["coordinate", "centre"])
def test_types_of_an_unseen_molecule_are_those_of_the_molecules_that_share_them(
    blocks: Blocks,
) -> None:
    coordinates, unknown = fitted(blocks).coordinates(build(ASKED), {})
    assert unknown == ()
    for block in blocks_of(build(ASKED), zmatrix_of(ASKED), blocks):
        mean, root = known_statistics(blocks)[block.key]
        columns = torch.tensor(block.columns)
        own = coordinates.unwhitening[columns[:, None], columns]
        scale = (root @ root.T).diagonal().sqrt()
        assert ((coordinates.mean[columns] - mean) / scale).abs().max() < 5 / math.sqrt(4000)
        error = (own @ own.T - root @ root.T) / torch.outer(scale, scale)
        assert error.abs().max() < 8 / math.sqrt(4000)


@pytest.mark.parametrize("blocks", ["coordinate", "centre"])
def test_the_unseen_molecule_is_white_where_it_has_the_known_statistics(blocks: Blocks) -> None:
    coordinates, _ = fitted(blocks).coordinates(build(ASKED), {})
    z = coordinates.encode(frames(ASKED, blocks))[0][:, : coordinates.num_euclidean]
    for block in blocks_of(build(ASKED), zmatrix_of(ASKED), blocks):
        covariance = torch.cov(z[:, list(block.columns)].T).reshape(len(block.columns), -1)
        assert (covariance - torch.eye(len(covariance)).double()).abs().max() < 0.15


@pytest.mark.parametrize("blocks", ["coordinate", "centre"])
def test_what_no_molecule_taught_has_the_values_of_the_force_field(blocks: Blocks) -> None:
    """Against OpenMM's own list of springs; whatever it has no spring for is a torsion."""
    molecule, zmatrix = build(ASKED), zmatrix_of(ASKED)
    types = StiffTypes.fit([build("AG")], [frames("AG", blocks)], blocks)
    coordinates, unknown = types.coordinates(molecule, rests(ASKED))
    assert any(key == "CYS last SG/CB/CA" for key in unknown)
    assert not any(key.startswith("ALA first CB") for key in unknown)

    springs = {}
    system = build_system(molecule)
    for force in system.getForces():
        if isinstance(force, openmm.HarmonicBondForce | openmm.HarmonicAngleForce):
            get, num = (
                (force.getBondParameters, force.getNumBonds())
                if isinstance(force, openmm.HarmonicBondForce)
                else (force.getAngleParameters, force.getNumAngles())
            )
            for *atoms, rest, stiffness in map(get, range(num)):
                springs[frozenset(atoms), len(atoms)] = rest._value, stiffness._value
    kt = BOLTZMANN_KJ_MOL_KELVIN * TEMPERATURE_KELVIN
    num_springs = 0
    for block in blocks_of(molecule, zmatrix, "coordinate"):
        (column,) = block.columns
        atoms = zmatrix.stiff[column]
        if block.key not in unknown:
            continue
        if len(atoms) < 4:
            rest, stiffness = springs[frozenset(atoms), len(atoms)]
            assert coordinates.mean[column] == pytest.approx(rest, abs=1e-9)
            width = float(coordinates.unwhitening[column, column])
            assert width == pytest.approx(math.sqrt(kt / stiffness), rel=1e-9)
            num_springs += 1
        else:
            assert coordinates.mean[column] == pytest.approx(float(relaxed(ASKED)[column]))
    assert num_springs > 10


@pytest.mark.parametrize("blocks", ["coordinate", "centre"])
def test_log_determinants_are_those_of_the_autograd_jacobian(blocks: Blocks) -> None:
    """All 3N columns: z, and an infinitesimal rigid motion, whose volume element is one."""
    types = StiffTypes.fit([build("AG")], [frames("AG", blocks)], blocks)
    coordinates, unknown = types.coordinates(build(ASKED), rests(ASKED))
    assert unknown
    z = torch.randn(2, coordinates.dim, generator=generator("z"), dtype=torch.float64)
    positions, log_det_decode = coordinates.decode(z)
    encoded, log_det_encode = coordinates.encode(positions)
    assert (encoded - z).abs().max() < 1e-8
    assert (log_det_decode + log_det_encode).abs().max() < 1e-9
    still = torch.zeros(3, dtype=torch.float64)
    for point, log_det in zip(z, log_det_decode, strict=True):

        def moved(z: Tensor, shift: Tensor, turn: Tensor) -> Tensor:
            body = coordinates.decode(z[None])[0][0]
            return (body + shift + torch.linalg.cross(turn.expand_as(body), body)).flatten()

        columns = torch.autograd.functional.jacobian(moved, (point, still, still))
        expected = torch.linalg.slogdet(torch.cat(columns, dim=1)).logabsdet
        assert float(log_det) == pytest.approx(float(expected), abs=1e-8)


def coordinates_by_type(molecule: Molecule) -> dict[str, float]:
    zmatrix = shared_zmatrix(molecule)
    positions = torch.from_numpy(molecule.positions_nm)[None]
    z = WhitenedInternal.unwhitened(zmatrix).encode(positions)[0][0]
    every = blocks_of(molecule, zmatrix, "coordinate")
    return {block.key: float(z[block.columns[0]]) for block in every}


@pytest.mark.parametrize(
    ("sequence", "pairs"),
    [
        ("GC", {"HB2": "HB3"}),
        ("NG", {"HD21": "HD22"}),
        ("AV", {"CG1": "CG2", **{f"HG1{n}": f"HG2{n}" for n in (1, 2, 3)}}),
        ("LG", {"CD1": "CD2", **{f"HD1{n}": f"HD2{n}" for n in (1, 2, 3)}, "HB2": "HB3"}),
    ],
)
def test_like_atoms_that_are_numbered_the_other_way_round_are_of_the_same_types(
    sequence: str, pairs: dict[str, str]
) -> None:
    """Relaxed structures have either way round; exchanging the names must change nothing."""
    molecule = build(sequence)
    numbers = {name: atom for atom, name in enumerate(molecule.atom_names)}
    exchanged = list(range(molecule.num_atoms))
    for first, second in pairs.items():
        exchanged[numbers[first]], exchanged[numbers[second]] = numbers[second], numbers[first]
    other = replace(molecule, positions_nm=molecule.positions_nm[exchanged])
    assert coordinates_by_type(molecule) == pytest.approx(coordinates_by_type(other), abs=1e-9)


@pytest.mark.parametrize(
    "sequences", [("AN", "GN"), ("GV", "AV", "SV"), ("LG", "LA"), ("GL", "AL")]
)
def test_residues_of_all_molecules_rest_in_the_same_basins(sequences: tuple[str, ...]) -> None:
    first, *others = (coordinates_by_type(build(sequence)) for sequence in sequences)
    for other in others:
        shared = {key for key in first.keys() & other.keys() if key.count("/") == 3}
        assert len(shared) > 8
        for key in shared:
            away = wrap_angle(torch.tensor(first[key] - other[key]))
            assert abs(float(away)) < 0.6, key


def test_types_are_read_as_they_were_written() -> None:
    types = StiffTypes.fit([build("AG")], [frames("AG", "centre")], "centre")
    again = StiffTypes.from_state(types.to_state())
    first, second = (one.coordinates(build("AG"), {})[0] for one in (types, again))
    assert torch.equal(first.mean, second.mean)
    assert torch.equal(first.unwhitening, second.unwhitening)


def test_a_few_frames_in_another_basin_do_not_count_and_many_are_refused() -> None:
    """A molecule with its omega turned to cis."""
    positions = frames("AG", "coordinate")
    plain = WhitenedInternal.unwhitened(zmatrix_of("AG"))
    omega = next(
        column
        for column, atoms in enumerate(plain.zmatrix.stiff)
        if len(atoms) == 4 and {build("AG").atom_names[a] for a in atoms} == {"CA", "C", "N"}
    )
    z = plain.encode(positions)[0]
    rows = random.Random(0).sample(range(len(z)), 20)
    z[rows, omega] += math.pi
    types = StiffTypes.fit([build("AG")], [decoded(plain, z)], "coordinate")
    kept = StiffTypes.fit([build("AG")], [positions], "coordinate")
    (block,) = (
        b for b in blocks_of(build("AG"), plain.zmatrix, "coordinate") if b.columns == (omega,)
    )
    assert types.roots[block.key] == pytest.approx(float(kept.roots[block.key]), rel=0.02)
    z[:200, omega] += math.pi
    with pytest.raises(InputError, match="look for cis peptide bonds"):
        StiffTypes.fit([build("AG")], [decoded(plain, z)], "coordinate")


def test_two_basins_of_like_shares_are_refused() -> None:
    """A methyl turned inside out in half of them, each a sixth of a turn from the mean."""
    positions = frames("AG", "coordinate")
    first, second = (build("AG").atom_names.index(name) for name in ("HB2", "HB3"))
    positions[::2, [first, second]] = positions[::2, [second, first]]
    with pytest.raises(InputError, match="number differently"):
        StiffTypes.fit([build("AG")], [positions], "coordinate")


def test_without_a_spring_what_is_new_is_refused() -> None:
    types = StiffTypes.fit([build("AG")], [frames("AG", "coordinate")], "coordinate")
    with pytest.raises(InputError, match="got none for CYS last"):
        types.coordinates(build(ASKED), {})


@pytest.mark.parametrize(("count", "message"), [(1, "expected more than 1, got 1"), (0, "got 0")])
def test_too_few_frames_are_refused(count: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        StiffTypes.fit([build("AG")], [frames("AG", "coordinate")[:count]], "coordinate")


def test_a_frozen_coordinate_is_refused() -> None:
    positions = frames("AG", "coordinate")[:1].repeat(50, 1, 1)
    with pytest.raises(InputError, match="simulate without constraints"):
        StiffTypes.fit([build("AG")], [positions], "coordinate")
