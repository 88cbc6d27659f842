"""Every step from noise to weight, and every training and simulation step, on no device at all.

Tensors on torch's ``meta`` device have shapes and no numbers. Every look at a value, for which one
would have to wait for a GPU, is refused, and so is every operation on tensors of two devices: what
runs here runs on a GPU without either.
"""

import copy
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim import adam
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bnce_dist import serving
from bnce_dist.chem.boltzmann_density import BoltzmannDensity
from bnce_dist.chem.coordinates import CenteredCartesian, Coordinates, WhitenedInternal, ZMatrix
from bnce_dist.chem.coordinates.tokens import tokens_of
from bnce_dist.chem.features import dipeptide_features
from bnce_dist.chem.molecule import Molecule
from bnce_dist.chem.potentials.force_field import ForceField
from bnce_dist.chem.simulation.langevin import Langevin, LangevinSettings, relax
from bnce_dist.chem.simulation.settings import ReferenceConfig
from bnce_dist.chem.simulation.umbrella import UmbrellaSampler
from bnce_dist.core.annealing import AnnealingSchedule, _through_levels
from bnce_dist.core.bridge import Bridge
from bnce_dist.core.couplings import COUPLINGS
from bnce_dist.core.device import DEVICE_VARIABLE
from bnce_dist.core.errors import InputError
from bnce_dist.core.random import generator
from bnce_dist.core.space import Space, Tokens
from bnce_dist.generator.architectures import (
    ENERGY_MODELS,
    VELOCITY_MODELS,
    EmulatorConfig,
    EnergyConfig,
    build_energy_matching,
    build_energy_model,
    build_flow_matching,
    build_velocity_field,
    space_of,
)
from bnce_dist.generator.boltzmann_generator import BoltzmannGenerator
from bnce_dist.generator.emulator import Emulator
from bnce_dist.generator.evaluation import evaluate_samples
from bnce_dist.generator.learned_density import LearnedDensity
from bnce_dist.generator.shared_architectures import (
    SharedEnergyConfig,
    TokenFieldConfig,
    TransferableConfig,
    build_field,
    build_molecular_matching,
    build_shared_energy_matching,
    build_token_field,
    build_token_matching,
)
from bnce_dist.generator.target import Target, TargetConfig
from bnce_dist.nn.mean_free import MeanFreeVelocity
from bnce_dist.nn.tokens import TokenVelocity
from bnce_dist.runs.pretrained.field import PretrainedSampler
from bnce_dist.training import optimizer
from bnce_dist.training.draws import draw_batch
from bnce_dist.training.loop import split_batch, take_step
from bnce_dist.training.settings import TrainSettings
from bnce_dist.training.state import TrainState
from bnce_dist.training.strategy import SingleDevice

META = torch.device("meta")


class OneDevice(TorchDispatchMode):
    """Refuses operations on tensors of two devices, also those that ``meta`` by itself lets pass.

    Numbers without dimensions may come from the CPU, and copies are what crosses over.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        leaves = tree_leaves((args, kwargs))
        devices = {x.device for x in leaves if isinstance(x, Tensor) and x.ndim > 0}
        if len(devices) > 1 and func is not torch.ops.aten.copy_.default:
            raise RuntimeError(f"{func} on {devices}")
        return func(*args, **(kwargs or {}))


class Crossings(TorchDispatchMode):
    """Counts copies from the CPU to ``meta``: each would make the host wait for a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default):
            sources = {x.device.type for x in tree_leaves(args) if isinstance(x, Tensor)}
            self.count += result.device == META and "cpu" in sources
        return result


@pytest.fixture(autouse=True)
def _one_device() -> Iterator[None]:
    with OneDevice():
        yield


BATCH = 6
SMALL = {"width": 16, "depth": 1}
FIELD = TransferableConfig(num_layers=1, num_scalars=8, num_vectors=4)


@pytest.fixture(scope="module")
def target() -> Target:
    # A dipeptide, whose atoms Cartesian models know, with torsions in its side chain.
    return Target.from_config(TargetConfig(sequence="AS"))


@pytest.fixture(scope="module")
def molecule(target: Target) -> Molecule:
    return target.molecule


@pytest.fixture(scope="module")
def positions(molecule: Molecule) -> Tensor:
    return torch.empty(BATCH, molecule.num_atoms, 3, dtype=torch.float64, device=META)


def coordinates_of(molecule: Molecule, *, is_cartesian: bool) -> Coordinates:
    if is_cartesian:
        return CenteredCartesian(molecule.num_atoms, 0.2)
    zmatrix = ZMatrix.from_graph(molecule.elements, molecule.bonds)
    num_stiff = 3 * molecule.num_atoms - 6 - sum(zmatrix.circular)
    identity = torch.eye(num_stiff, dtype=torch.float64)
    return WhitenedInternal(zmatrix, identity[0], identity)


def is_cartesian(architecture: str) -> bool:
    return architecture in ("gvp", "distance", "graphormer")


@pytest.fixture(params=[False, True], ids=["internal", "cartesian"])
def coordinates(request: pytest.FixtureRequest, molecule: Molecule) -> Coordinates:
    return coordinates_of(molecule, is_cartesian=request.param).to(META)


def gvp_velocity(molecule: Molecule) -> MeanFreeVelocity:
    features = dipeptide_features(molecule)
    return MeanFreeVelocity(build_field(FIELD, features.shape[1]), features)


def internal_velocity(molecule: Molecule) -> nn.Module:
    return build_velocity_field(EmulatorConfig(**SMALL), space_of(molecule, is_cartesian=False))


TOKEN_FIELD = TokenFieldConfig(num_heads=2, **SMALL)


def tokens_of_molecule(molecule: Molecule) -> Tokens:
    return tokens_of(molecule, ZMatrix.from_graph(molecule.elements, molecule.bonds))


def token_velocity(molecule: Molecule) -> TokenVelocity:
    tokens = tokens_of_molecule(molecule)
    return TokenVelocity(build_token_field(TOKEN_FIELD, tokens), tokens)


VELOCITY_FIELDS: dict[str, Callable[[Molecule], nn.Module]] = {
    "internal": internal_velocity,
    "gvp": gvp_velocity,
    "tokens": token_velocity,
}


@pytest.fixture(params=VELOCITY_MODELS)
def emulator(request: pytest.FixtureRequest, molecule: Molecule) -> Emulator:
    field = VELOCITY_FIELDS[request.param](molecule)
    coordinates = coordinates_of(molecule, is_cartesian=is_cartesian(request.param))
    return Emulator(molecule.identity, coordinates, field, 1, 1.0).to(META)


def space_for(molecule: Molecule, architecture: str) -> Space:
    return space_of(
        molecule, is_cartesian=is_cartesian(architecture), has_tokens=architecture == "tokens"
    )


def density_of(molecule: Molecule, architecture: str) -> LearnedDensity:
    config = EnergyConfig(architecture=architecture, num_features=8, **SMALL)
    space = space_for(molecule, architecture)
    coordinates = coordinates_of(molecule, is_cartesian=is_cartesian(architecture))
    return LearnedDensity(molecule.identity, coordinates, build_energy_model(config, space))


@pytest.fixture(params=ENERGY_MODELS)
def density(request: pytest.FixtureRequest, molecule: Molecule) -> LearnedDensity:
    return density_of(molecule, request.param).to(META)


def points_of(model: Emulator | LearnedDensity) -> Tensor:
    return torch.empty(BATCH, model.path.dim, device=META)


@pytest.mark.parametrize(
    "step",
    [
        lambda x: x @ torch.ones(4, 2),
        lambda x: x[:, torch.tensor([0, 1])],
        lambda x: x + torch.ones(4),
        lambda x: x[:, torch.ones(4, dtype=torch.bool, device=META)],
        lambda x: x.sum().item(),
        lambda x: bool(x.isfinite().all()),
        lambda x: x.cpu(),
        lambda x: x.tolist(),
    ],
    ids=["product", "index", "sum", "mask", "item", "bool", "cpu", "list"],
)
def test_the_guard_sees_mixed_devices_and_waiting(step: Callable[[Tensor], object]) -> None:
    with pytest.raises((RuntimeError, NotImplementedError)):
        step(torch.empty(3, 4, device=META))


def test_samples(emulator: Emulator) -> None:
    positions = emulator.sample(BATCH, generator(0))
    assert (positions.shape[0], positions.device) == (BATCH, META)


def test_exact_likelihoods(emulator: Emulator) -> None:
    z, log_density, inverted = emulator.transport_with_log_density(points_of(emulator))
    assert z.shape == (BATCH, emulator.path.dim)
    assert {log_density.device, inverted.device} == {META}


def test_learned_densities_and_their_gradients(density: LearnedDensity) -> None:
    z = points_of(density)
    log_density, gradient = density.log_density_z_and_gradient(z)
    assert density.log_density_z(z).shape == log_density.shape == (BATCH,)
    assert gradient.shape == z.shape


def test_coordinates(coordinates: Coordinates, positions: Tensor) -> None:
    z, log_det = coordinates._encode(positions)
    back, _ = coordinates.decode(z)
    gradient = coordinates.pull_back(z, back, positions)
    assert (back.shape, gradient.shape) == (positions.shape, z.shape)
    assert {log_det.device, coordinates.validity(z).device} == {META}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_energies_and_forces(target: Target, positions: Tensor, dtype: torch.dtype) -> None:
    force_field = target.to(META).force_field.astype(dtype)
    energies, forces = force_field.energy_and_forces_kj_mol(positions)
    assert (energies.shape, forces.shape, forces.dtype) == ((BATCH,), positions.shape, dtype)


def test_evaluated_samples(target: Target, coordinates: Coordinates) -> None:
    z = torch.empty(BATCH, coordinates.dim, device=META)
    arrays = evaluate_samples(target.to(META), coordinates, z, z[:, 0])
    assert {array.device for array in arrays.values()} == {META}


def test_a_level_of_annealing(target: Target) -> None:
    density = density_of(target.molecule, "late_fusion").to(META)
    end = BoltzmannDensity(
        target.molecule,
        copy.deepcopy(density.coordinates).float(),
        target.to(META).force_field.astype(torch.float32),
    )
    bridge = Bridge(density.log_density_z_and_gradient, end, density.path)
    schedule = AnnealingSchedule((0.5, 1.0), (0.1, 0.1), num_leapfrog=2)
    point = bridge.evaluate(points_of(density))
    annealed = _through_levels(bridge, point, schedule, generator(0), resample_below=0.5)
    assert annealed.z.device == META
    assert annealed.log_weights.dtype == torch.float64


def dynamics_of(force_field: ForceField) -> Langevin:
    return Langevin(
        lambda x: force_field.energy_and_forces_kj_mol(x)[1],
        np.ones(force_field.num_atoms),
        LangevinSettings(300.0, 2.0),
    )


def test_langevin_dynamics(target: Target, positions: Tensor) -> None:
    dynamics = dynamics_of(target.to(META).dynamics(BATCH, compiled=False))
    starts = relax(dynamics.forces, positions.float(), num_steps=2)
    velocities = dynamics.thermal_velocities(starts, generator(0))
    ends = dynamics.unchecked_run(starts, velocities, 2, generator(0))
    assert all((end.device, end.dtype) == (META, torch.float32) for end in ends)


def test_masses_go_to_the_device_once(target: Target, positions: Tensor) -> None:
    dynamics = dynamics_of(target.to(META).dynamics(BATCH, compiled=False))
    with Crossings() as crossings:
        velocities = dynamics.thermal_velocities(positions.float(), generator(0))
        for _ in range(2):
            dynamics.unchecked_run(positions.float(), velocities, 1, generator(0))
    assert crossings.count == 1


def test_an_interval_of_umbrella_sampling_with_its_exchanges(target: Target) -> None:
    config = ReferenceConfig(num_phi=4, num_psi=4)
    force_field = target.to(META).dynamics(16, compiled=False)
    sampler = UmbrellaSampler(force_field, target.molecule, config, seed=0)
    assert len(target.molecule.rotatable_torsions) > 0
    sampler.positions_nm, sampler.velocities = torch.empty(2, 16, force_field.num_atoms, 3).to(META)
    angles, window = sampler._advance_interval(sampler._langevin(), generator(0))
    assert angles.shape == (16, 2 + len(target.molecule.rotatable_torsions))
    assert window.device == sampler.chain_centres.device == META


def molecular_matching(coupling: str) -> nn.Module:
    features = [
        dipeptide_features(Molecule.from_sequence(sequence)).tolist() for sequence in ("AA", "AS")
    ]
    config = FIELD.model_copy(update={"coupling": coupling})
    return build_molecular_matching(config, features)


def token_matching() -> nn.Module:
    tokens = [tokens_of_molecule(Molecule.from_sequence(sequence)) for sequence in ("AA", "AS")]
    return build_token_matching(FIELD, TOKEN_FIELD, tokens)


def shared_energy_matching(negatives: str) -> nn.Module:
    tokens = [tokens_of_molecule(Molecule.from_sequence(sequence)) for sequence in ("AA", "AS")]
    config = SharedEnergyConfig(num_features=8, num_negatives=4, negatives=negatives, **SMALL)
    return build_shared_energy_matching(config, tokens)


def energy_matching(architecture: str, negatives: str, molecule: Molecule) -> nn.Module:
    config = EnergyConfig(
        architecture=architecture, num_features=8, num_negatives=4, negatives=negatives, **SMALL
    )
    space = space_for(molecule, architecture)
    return build_energy_matching(config, space)


def flow_matching(molecule: Molecule) -> nn.Module:
    return build_flow_matching(EmulatorConfig(**SMALL), space_of(molecule, is_cartesian=False))


ON_THE_CPU = {"optimal_transport"}
"""Couplings that scipy solves, once per batch."""
OBJECTIVES = {
    "flow": flow_matching,
    "many-flow": lambda _: token_matching(),
    **{
        f"many-{negatives}": lambda _, negatives=negatives: shared_energy_matching(negatives)
        for negatives in ("stratified", "independent")
    },
    **{
        f"molecules-{coupling}": lambda _, coupling=coupling: molecular_matching(coupling)
        for coupling in COUPLINGS.keys() - ON_THE_CPU
    },
    **{
        f"{architecture}-{negatives}": partial(energy_matching, architecture, negatives)
        for architecture in ENERGY_MODELS
        for negatives in ("stratified", "independent")
    },
}


@pytest.fixture
def fused_on_meta(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have trainings on no device take what they take on a GPU."""
    monkeypatch.setattr(optimizer, "FUSED_ON", {"meta"})
    monkeypatch.setattr(adam, "_device_dtype_check_for_fused", lambda weight: None)


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_a_step_of_training(fused_on_meta: None, name: str, molecule: Molecule) -> None:
    """Two of them, as in the loop; none waits, and only what is drawn comes from the host."""
    objective = OBJECTIVES[name](molecule)
    path = getattr(objective, "path", None)
    num_columns = path.dim + name.startswith("many") if path else 1 + 3 * molecule.num_atoms
    data = np.zeros((BATCH, num_columns), np.float32)
    settings = TrainSettings(num_steps=1000)
    state = TrainState(SingleDevice(objective.to(META), settings))
    assert [made.defaults["fused"] for made in state.strategy.optimizers] == [True]
    for step in range(2):
        batch = draw_batch(objective, data, settings, step, slice(None))
        with Crossings() as crossings:
            losses = take_step(state, split_batch(batch, objective.shared, 2), settings)
        assert {loss.device for loss in losses.values()} == {META}
        assert crossings.count == 0
    assert state.strategy.gradients.stopped.device == META
    with pytest.raises(RuntimeError, match="item"):  # only where a record is due
        state.strategy.gradients.require_finite(state.step, settings)


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_a_step_of_an_optimizer_that_is_not_fused(name: str, molecule: Molecule) -> None:
    settings = TrainSettings(num_steps=1000, optimizer=name)
    objective = flow_matching(molecule).to(META)
    state = TrainState(SingleDevice(objective, settings))
    data = np.zeros((BATCH, objective.path.dim), np.float32)
    batch = draw_batch(objective, data, settings, 0, slice(None))
    take_step(state, split_batch(batch, objective.shared, 1), settings)
    assert state.step == 1


def test_a_generator_and_a_served_model_refuse_a_device_that_is_not_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for load in (BoltzmannGenerator.load, PretrainedSampler.load):
        with pytest.raises(InputError, match=r"device: .*got cuda:1, of which .* sees 0"):
            load(Path("model.pt"), device="cuda:1")
    monkeypatch.setenv(DEVICE_VARIABLE, "cuda:2")
    with pytest.raises(InputError, match=r"device: .*got cuda:2"):
        serving._load_pyfunc("model.pt", {"task": "sample"})
