"""A model of a molecule from files carries their System: the same energies without the files."""

import dataclasses
from pathlib import Path

import numpy as np
import openmm
import pytest
import torch
from openmm import unit
from torch import Tensor

from bnce_dist.chem.coordinates import WhitenedInternal, ZMatrix
from bnce_dist.chem.potentials.openmm import OpenMMPotential
from bnce_dist.core.errors import InputError
from bnce_dist.generator.architectures import (
    EmulatorConfig,
    EnergyConfig,
    build_energy_model,
    build_velocity_field,
    space_of,
)
from bnce_dist.generator.boltzmann_generator import BoltzmannGenerator
from bnce_dist.generator.emulator import Emulator
from bnce_dist.generator.learned_density import LearnedDensity
from bnce_dist.generator.target import Target, TargetConfig
from tests.chem.molecule_files import WRITERS
from tests.chem.substances import alkane, system_of

BUTANE = alkane(4)
TEMPERATURE_KELVIN = 320.0


@pytest.fixture(scope="module")
def frames() -> Tensor:
    """Frames of OpenMM's own dynamics."""
    integrator = openmm.LangevinMiddleIntegrator(TEMPERATURE_KELVIN, 5.0, 0.0005)
    integrator.setRandomNumberSeed(1)
    platform = openmm.Platform.getPlatformByName("Reference")
    context = openmm.Context(system_of(BUTANE), integrator, platform)
    context.setPositions(BUTANE.positions_nm)
    context.setVelocitiesToTemperature(TEMPERATURE_KELVIN, 2)
    found = []
    for _ in range(200):
        integrator.step(50)
        positions = context.getState(positions=True).getPositions(asNumpy=True)
        found.append(positions.value_in_unit(unit.nanometer))
    return torch.from_numpy(np.array(found))


def generator_of(folder: Path, kind: str, frames: Tensor) -> BoltzmannGenerator:
    """Return untrained models of butane from files, which are gone afterwards."""
    files = WRITERS[kind](folder, BUTANE)
    config = TargetConfig(
        topology=str(files.topology),
        coordinates=str(files.coordinates),
        parameters=tuple(map(str, files.parameters)),
        torsions=("C1-C2-C3-C4",),
        temperature_kelvin=TEMPERATURE_KELVIN,
    )
    target = Target.from_config(config)
    for path in (files.topology, files.coordinates, *files.parameters):
        path.unlink()
    molecule, space = target.molecule, space_of(target.molecule, is_cartesian=False)
    zmatrix = ZMatrix.from_graph(molecule.elements, molecule.bonds)
    coordinates = WhitenedInternal.fit(zmatrix, frames)
    torch.manual_seed(0)
    velocity = build_velocity_field(EmulatorConfig(width=16, depth=1), space).eval()
    energy = build_energy_model(EnergyConfig(width=16, depth=1), space).eval()
    return BoltzmannGenerator(
        config,
        target,
        Emulator(molecule.identity, coordinates, velocity, 4, 1.0),
        LearnedDensity(molecule.identity, coordinates, energy),
    )


@pytest.mark.parametrize("kind", WRITERS)
def test_energies_of_a_loaded_model_are_those_of_openmm(
    kind: str, frames: Tensor, tmp_path: Path
) -> None:
    before = generator_of(tmp_path, kind, frames)
    before.save(tmp_path / "model.pt")
    after = BoltzmannGenerator.load(tmp_path / "model.pt")
    expected = OpenMMPotential(system_of(BUTANE), TEMPERATURE_KELVIN).reduced_potential(frames)
    energies = after.reduced_potential(frames)
    np.testing.assert_array_equal(energies, before.reduced_potential(frames))
    # Files of other programs round their numbers.
    np.testing.assert_allclose(energies, expected.numpy(), atol=1e-3)
    assert after.target.molecule == before.target.molecule
    assert after.target.molecule.identity == before.target.molecule.identity
    assert after.target.state == before.target.state


def test_samples_and_weights_are_the_same_after_loading(frames: Tensor, tmp_path: Path) -> None:
    before = generator_of(tmp_path, "xml", frames)
    before.save(tmp_path / "model.pt")
    first = before.sample(300, seed=4, progress=False)
    BoltzmannGenerator.load(tmp_path / "model.pt").save(tmp_path / "again.pt")
    second = BoltzmannGenerator.load(tmp_path / "again.pt").sample(300, seed=4, progress=False)
    for name in ("positions_nm", "reduced_potential", "log_density", "log_weights"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    intact = np.isfinite(first.log_weights)
    assert intact.sum() > 100
    positions = torch.from_numpy(first.positions_nm[intact])
    oracle = OpenMMPotential(system_of(BUTANE), TEMPERATURE_KELVIN).reduced_potential(positions)
    np.testing.assert_allclose(first.reduced_potential[intact], oracle.numpy(), rtol=1e-6)


def test_networks_in_half_precision_leave_the_energies_as_they_are(
    frames: Tensor, tmp_path: Path
) -> None:
    before = generator_of(tmp_path, "xml", frames)
    before.save(tmp_path / "model.pt", half_precision=True)
    after = BoltzmannGenerator.load(tmp_path / "model.pt")
    np.testing.assert_array_equal(after.reduced_potential(frames), before.reduced_potential(frames))


def test_another_temperature_divides_the_same_energy(frames: Tensor, tmp_path: Path) -> None:
    before = generator_of(tmp_path, "xml", frames)
    before.save(tmp_path / "model.pt")
    after = BoltzmannGenerator.load(tmp_path / "model.pt")
    warmer = after.target.at_temperature(2 * TEMPERATURE_KELVIN)
    halved = warmer.force_field.reduced_potential(frames)
    np.testing.assert_allclose(2 * halved.numpy(), before.reduced_potential(frames), rtol=1e-12)


def test_a_system_that_was_cut_short_is_one_line(frames: Tensor, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    generator = generator_of(tmp_path, "xml", frames)
    xml = str(generator.target.system_xml)
    for damaged in (xml[: len(xml) // 2], "", xml.replace("System", "Integrator")):
        target = dataclasses.replace(generator.target, system_xml=damaged)
        dataclasses.replace(generator, target=target).save(path)
        with pytest.raises(InputError) as raised:
            BoltzmannGenerator.load(path)
        assert "\n" not in str(raised.value)
        assert str(path) in str(raised.value)
