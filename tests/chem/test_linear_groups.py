"""Groups on a straight line are refused before any work; bent ones are as exact as all others."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import openmm
import pytest
import torch
from openmm import unit
from torch import Tensor
from typer.testing import CliRunner

from bnce_dist.chem.coordinates import WhitenedInternal, ZMatrix
from bnce_dist.chem.coordinates.straight import MAX_ANGLE
from bnce_dist.chem.molecule import Molecule
from bnce_dist.chem.templates import RESIDUES
from bnce_dist.cli.train import app
from bnce_dist.core.errors import InputError
from bnce_dist.generator.architectures import space_of
from bnce_dist.generator.target import TargetConfig
from bnce_dist.pipeline.config import Config
from bnce_dist.pipeline.executor import LocalExecutor
from bnce_dist.runs.sweep.jobs import TrainJob
from bnce_dist.tracking.tracker import Tracker
from tests.chem.own_force_field import Springs, with_tail

NITRILE = with_tail(5, "N", [0.116])
ALKYNE = with_tail(5, "CH", [0.12, 0.106])
AZIDE = with_tail(5, "NN", [0.124, 0.113], degrees=172.0)
BENT = with_tail(4, "NH", [0.12, 0.1], degrees=150.0)


def molecule_of(springs: Springs) -> Molecule:
    return Molecule.from_topology("springs", springs.topology(), springs.positions_nm)


def thermal_frames(springs: Springs, num_frames: int) -> Tensor:
    """Return frames of OpenMM's Langevin dynamics at 300 K, 50 fs apart."""
    integrator = openmm.LangevinMiddleIntegrator(300.0, 5.0, 0.0005)
    integrator.setRandomNumberSeed(1)
    platform = openmm.Platform.getPlatformByName("Reference")
    context = openmm.Context(springs.system(), integrator, platform)
    context.setPositions(springs.positions_nm)
    context.setVelocitiesToTemperature(300.0, 2)
    frames = []
    for _ in range(num_frames):
        integrator.step(100)
        positions = context.getState(positions=True).getPositions(asNumpy=True)
        frames.append(positions.value_in_unit(unit.nanometer))
    return torch.from_numpy(np.array(frames))


def refusal(folder: Path, springs: Springs, torsion: str) -> str:
    """Return the one line with which `bnce train` refuses a molecule, having begun nothing."""
    files = springs.write(folder, "own")
    arguments = [
        f"target.topology={files.topology}",
        f"target.coordinates={files.coordinates}",
        f"target.torsions=[{torsion}]",
    ]
    command = [*arguments, "--output", str(folder / "runs"), "cluster.executor=local"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 2, result.output
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert not list(folder.rglob("artifact.json"))
    return line


@pytest.mark.parametrize(
    ("springs", "got"),
    [
        (NITRILE, "got 180 degrees of N15-C5-C4"),
        (ALKYNE, "got 180 degrees of"),
        (AZIDE, "got 172 degrees of"),
    ],
    ids=["nitrile", "alkyne", "azide"],
)
def test_a_straight_group_is_refused_before_any_work(
    springs: Springs, got: str, tmp_path: Path
) -> None:
    line = refusal(tmp_path, springs, "C1-C2-C3-C4")
    assert "expected angles below 160 degrees" in line
    assert got in line
    assert "choose a molecule without nitriles, alkynes" in line


def test_a_sweep_refuses_it_before_what_its_trials_share(tmp_path: Path) -> None:
    files = NITRILE.write(tmp_path, "own")
    target = TargetConfig(
        topology=str(files.topology),
        coordinates=str(files.coordinates),
        torsions=("C1-C2-C3-C4",),
    )
    shared = tmp_path / "shared"
    with pytest.raises(InputError, match="got 180 degrees of N15-C5-C4"):
        TrainJob().prepare(
            Config(target=target), ["energy.width"], shared, LocalExecutor(), Tracker()
        )
    assert not shared.exists()


@pytest.mark.parametrize(
    "springs",
    [with_tail(2, "N", [0.116]), with_tail(2, "CH", [0.12, 0.106])],
    ids=["acetonitrile", "propyne"],
)
def test_molecules_that_are_but_a_straight_line_have_no_torsion(
    springs: Springs, tmp_path: Path
) -> None:
    names = springs.names
    line = refusal(tmp_path, springs, f"{names[2]}-C1-C2-{names[5]}")
    assert "got a straight line at C2" in line


def test_frames_of_a_nitrile_come_so_near_the_line_that_they_have_no_coordinates() -> None:
    molecule, frames = molecule_of(NITRILE), thermal_frames(NITRILE, 1500)
    zmatrix = ZMatrix.from_graph(molecule.elements, molecule.bonds)
    with pytest.raises(InputError, match="lie on a line"):
        WhitenedInternal.fit(zmatrix, frames)


def test_no_amino_acid_is_nearly_straight() -> None:
    """The relaxed structure of ET is strained: its carboxylate is bent to 161 degrees."""
    for sequence in (*(f"ACE-{residue}-NME" for residue in RESIDUES), "ET"):
        molecule = Molecule.from_sequence(sequence)
        assert space_of(molecule, is_cartesian=False).dim == 3 * molecule.num_atoms - 6


def test_the_limit_is_of_the_relaxed_structure() -> None:
    for degrees, fits in ((158.0, True), (162.0, False)):
        molecule = molecule_of(with_tail(4, "NH", [0.12, 0.1], degrees=degrees))
        if fits:
            space_of(molecule, is_cartesian=False)
        else:
            with pytest.raises(InputError, match="got 162 degrees"):
                space_of(molecule, is_cartesian=False)
    collapsed = dataclasses.replace(molecule, positions_nm=np.zeros_like(molecule.positions_nm))
    space_of(collapsed, is_cartesian=False)


def test_a_group_that_is_bent_by_thirty_degrees_is_encoded_exactly() -> None:
    molecule, frames = molecule_of(BENT), thermal_frames(BENT, 400)
    zmatrix = ZMatrix.from_graph(molecule.elements, molecule.bonds)
    space_of(molecule, is_cartesian=False)
    coordinates = WhitenedInternal.fit(zmatrix, frames)
    z, log_det = coordinates.encode(frames)
    decoded, log_det_decode = coordinates.decode(z)
    shapes = [(x[:, :, None] - x[:, None]).norm(dim=-1) for x in (decoded, frames)]
    assert (shapes[0] - shapes[1]).abs().max() < 1e-10
    assert (log_det + log_det_decode).abs().max() < 1e-9
    assert coordinates.validity(z).all()
    angles = z.new_tensor([float(_angle(frame, (3, 11, 12))) for frame in frames])
    assert angles.max() > MAX_ANGLE
    widest = int(angles.argmax())
    for row in (0, widest):
        assert float(log_det_decode[row]) == pytest.approx(_log_det(coordinates, z[row]), abs=1e-7)


def _angle(frame: Tensor, atoms: tuple[int, int, int]) -> float:
    first, middle, last = (frame[atom] for atom in atoms)
    cosine = torch.cosine_similarity(first - middle, last - middle, dim=0)
    return math.acos(float(cosine))


def _log_det(coordinates: WhitenedInternal, z: Tensor) -> float:
    """Return it by autograd, of z and a rigid motion, whose volume element is one."""

    def moved(z: Tensor, shift: Tensor, turn: Tensor) -> Tensor:
        body = coordinates.decode(z[None])[0][0]
        return (body + shift + torch.linalg.cross(turn.expand_as(body), body)).flatten()

    still = torch.zeros(3, dtype=torch.float64)
    columns = torch.autograd.functional.jacobian(moved, (z, still, still))
    return float(torch.linalg.slogdet(torch.cat(columns, dim=1)).logabsdet)
