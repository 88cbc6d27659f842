"""What a configuration says reaches the models, and their files remember it."""

import copy
import pickle
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from bnce_dist.chem.coordinates import CenteredCartesian
from bnce_dist.core.errors import InputError
from bnce_dist.core.interpolant import LinearInterpolant
from bnce_dist.core.objectives import IndependentNegatives
from bnce_dist.core.random import generator
from bnce_dist.core.space import Space, Tokens
from bnce_dist.generator.architectures import (
    ENERGY_MODELS,
    EmulatorConfig,
    EnergyConfig,
    build_energy_matching,
    build_energy_model,
    build_flow_matching,
    build_velocity_field,
)
from bnce_dist.generator.emulator import Emulator
from bnce_dist.generator.learned_density import LearnedDensity
from bnce_dist.nn.energy_model import EnergyModel
from bnce_dist.nn.gvp import GVPVectorField
from bnce_dist.nn.mean_free import MeanFreeVelocity

SMALL = {"width": 16, "depth": 1, "interpolant": "linear"}
COORDINATES = CenteredCartesian(num_atoms=3, scale_nm=0.1)
NODE_FEATURES = [[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]
TOKENS: Tokens = {
    "features": NODE_FEATURES,
    "relations": [[0, 1, 2], [9, 0, 1], [10, 9, 0]],
    "slots": [[0, -1, -1, -1], [1, 2, -1, -1], [3, 4, 5, -1]],
}
POSITIONS = 0.1 * torch.randn(4, 3, 3, generator=torch.manual_seed(0), dtype=torch.float64)


def test_objectives_follow_the_configuration() -> None:
    flow = build_flow_matching(EmulatorConfig(**SMALL), Space(6))
    assert flow.path.euclidean == LinearInterpolant()
    config = EnergyConfig(negatives="independent", num_negatives=3, num_fourier=5, **SMALL)
    energy = build_energy_matching(config, Space(6))
    assert energy.path.euclidean == LinearInterpolant()
    assert energy.negatives == IndependentNegatives(3, config.time_exponent)
    assert energy.energy_model.position.frequencies.shape == (6, 5)


@pytest.mark.parametrize("architecture", ["late_fusion", "concatenated"])
def test_a_density_is_read_as_it_was_written(architecture: str, tmp_path: Path) -> None:
    config = EnergyConfig(architecture=architecture, num_fourier=5, **SMALL)
    model = build_energy_model(config, Space(6))
    density = LearnedDensity("water", COORDINATES, model, config.interpolant)
    density.save(tmp_path / "energy.pt")
    again = LearnedDensity.load(tmp_path / "energy.pt")
    assert again.energy_model.architecture == architecture
    assert again.path == density.path
    torch.testing.assert_close(again.log_density(POSITIONS), density.log_density(POSITIONS))


def test_an_emulator_is_read_as_it_was_written(tmp_path: Path) -> None:
    config = EmulatorConfig(**SMALL)
    field = build_velocity_field(config, Space(6))
    emulator = Emulator("water", COORDINATES, field, 3, 1.5, config.interpolant)
    emulator.save(tmp_path / "emulator.pt")
    again = Emulator.load(tmp_path / "emulator.pt")
    assert again.path.euclidean == LinearInterpolant()
    assert (again.num_ode_steps, again.ode_time_exponent) == (3, 1.5)


@pytest.mark.parametrize("architecture", ["distance", "graphormer"])
def test_a_cartesian_density_is_read_as_it_was_written(architecture: str, tmp_path: Path) -> None:
    config = EnergyConfig(architecture=architecture, **SMALL)
    model = build_energy_model(config, Space.of_atoms(NODE_FEATURES))
    density = LearnedDensity("water", COORDINATES, model, config.interpolant)
    density.save(tmp_path / "energy.pt")
    again = LearnedDensity.load(tmp_path / "energy.pt")
    torch.testing.assert_close(again.log_density(POSITIONS), density.log_density(POSITIONS))
    # Blind to reflections, which is what counting both images of a molecule rests on.
    torch.testing.assert_close(again.log_density(-POSITIONS), density.log_density(POSITIONS))


@pytest.mark.parametrize(
    ("architecture", "node_features", "message"),
    [
        ("tokens", None, "internal coordinates: expected late_fusion or concatenated, got tokens"),
        ("tokens", NODE_FEATURES, "Cartesian coordinates: expected distance or graphormer, got to"),
        ("graphormer", None, "internal coordinates: expected late_fusion or concatenated, got gr"),
        ("late_fusion", NODE_FEATURES, "Cartesian coordinates: expected distance or graphormer"),
        ("graphormer", NODE_FEATURES, "width of a graphormer: expected a multiple of 8"),
    ],
)
def test_an_energy_model_of_other_coordinates_is_refused(
    architecture: str, node_features: list[list[float]] | None, message: str
) -> None:
    config = EnergyConfig(architecture=architecture, width=20, depth=1)
    with pytest.raises(InputError, match=message):
        build_energy_model(config, Space(6, 0, node_features))


class Quadratic(EnergyModel):
    """The whole of a new energy model: a class, and its line in the registry."""

    architecture = "quadratic"

    def __init__(self, num_euclidean: int, num_circular: int, *, width: int, shift: float = 0.5):
        super().__init__()
        self.network = nn.Linear(num_euclidean + num_circular, width)
        self.shift = shift

    def forward(self, z: Tensor, t: Tensor) -> Tensor:
        return -(t + self.shift) * self.network(z).square().sum(1)

    def at_times(self, z: Tensor, times: Tensor) -> Tensor:
        return torch.stack([self(z, t) for t in times.expand(len(z), -1).unbind(1)], dim=1)

    def forward_with_times(self, z: Tensor, t: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
        return self(z, t), self.at_times(z, times)


def test_a_new_energy_model_is_one_class_and_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValidationError, match="'quadratic'"):
        EnergyConfig(architecture="quadratic")
    monkeypatch.setitem(ENERGY_MODELS, Quadratic.architecture, Quadratic)
    config = EnergyConfig(architecture="quadratic", width=3)
    model = build_energy_matching(config, Space(6)).energy_model
    assert model.config() == {"num_euclidean": 6, "num_circular": 0, "width": 3, "shift": 0.5}
    density = LearnedDensity("water", COORDINATES, model)
    density.save(tmp_path / "energy.pt")
    again = LearnedDensity.load(tmp_path / "energy.pt")
    torch.testing.assert_close(again.log_density(POSITIONS), density.log_density(POSITIONS))


@pytest.mark.parametrize("architecture", ENERGY_MODELS)
def test_copies_of_a_model_are_rebuilt_like_the_original(architecture: str) -> None:
    config = EnergyConfig(architecture=architecture, **SMALL)
    is_cartesian = architecture in ("distance", "graphormer")
    space = Space.of_atoms(NODE_FEATURES) if is_cartesian else Space(6, tokens=TOKENS)
    model = build_energy_model(config, space)
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert copied.config() == model.config()
        type(model)(**copied.config()).load_state_dict(copied.state_dict())


def test_a_cartesian_emulator_keeps_its_samples_and_their_exact_density(tmp_path: Path) -> None:
    torch.manual_seed(0)
    field = GVPVectorField(2, num_layers=2, num_scalars=8, num_vectors=4, max_distance=8.0)
    velocity = MeanFreeVelocity(field, torch.tensor(NODE_FEATURES)).double()
    Emulator("water", COORDINATES, velocity, 3, 1.5, "linear").save(tmp_path / "emulator.pt")
    emulator = Emulator.load(tmp_path / "emulator.pt", molecule_identity="water")
    assert emulator.space == Space.of_atoms(NODE_FEATURES)
    emulator.velocity_field.double()
    z_prior = emulator.path.sample_prior(4, generator("prior"), torch.float64)
    samples, log_density, _ = emulator.transport_with_log_density(z_prior)
    torch.testing.assert_close(samples, emulator.transport(z_prior))
    # The determinant of the whole map, by differences.
    step = 1e-5
    for index, z in enumerate(z_prior):
        shifts = step * torch.eye(6, dtype=torch.float64)
        columns = (emulator.transport(z + shifts) - emulator.transport(z - shifts)) / (2 * step)
        expected = emulator.path.log_prior(z[None])[0] - columns.det().abs().log()
        assert log_density[index] == pytest.approx(float(expected), abs=1e-5)


def test_files_of_version_0_1_are_still_read(tmp_path: Path) -> None:
    """They have no settings beside the weights: one architecture, one interpolant."""
    model = build_energy_model(EnergyConfig(width=16, depth=1), Space(6))
    density = LearnedDensity("water", COORDINATES, model)
    path = tmp_path / "energy.pt"
    density.save(path)
    torch.save(torch.load(path, weights_only=True) | {"settings": {}}, path)
    again = LearnedDensity.load(path)
    torch.testing.assert_close(again.log_density(POSITIONS), density.log_density(POSITIONS))
    assert again.path == density.path
