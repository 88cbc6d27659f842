"""The contract of models over tokens: what batch and order of atoms must not change."""

import math
import re

import pytest
import torch
from torch import Tensor

from bnce_dist.core.errors import InputError
from bnce_dist.core.space import NUM_RELATIONS, Tokens
from bnce_dist.generator.architectures import EnergyConfig
from bnce_dist.generator.shared_architectures import SharedEnergyConfig, TokenFieldConfig
from bnce_dist.nn.tokens import TokenEnergy, TokenField, TokenTransformer, TokenVelocity

SIZES = (3, 5, 4)
NUM_FEATURES = 6


def tokens_of_size(num_atoms: int) -> Tokens:
    """A molecule of random features and relations, every other torsion free."""
    random = torch.Generator().manual_seed(num_atoms)
    slots = torch.full((num_atoms, 4), -1)
    stiff = [(atom, 0) for atom in range(1, num_atoms)] + [
        (atom, 1) for atom in range(2, num_atoms)
    ]
    stiff += [(atom, 2) for atom in range(3, num_atoms, 2)]
    free = [(atom, 3) for atom in range(4, num_atoms, 2)]
    for column, place in enumerate(stiff + free):
        slots[place] = column
    relations = torch.randint(NUM_RELATIONS, (num_atoms, num_atoms), generator=random)
    return {
        "features": torch.rand(num_atoms, NUM_FEATURES, generator=random).tolist(),
        "relations": relations.tolist(),
        "slots": slots.tolist(),
    }


def dim_of(tokens: Tokens) -> int:
    return int((torch.tensor(tokens["slots"]) >= 0).sum())


def awake(module: torch.nn.Module) -> None:
    """Give weights to what starts at zero, so that a test can see it."""
    for parameter in module.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.3)


@pytest.fixture
def field() -> TokenField:
    torch.manual_seed(0)
    field = TokenField(NUM_FEATURES, width=16, depth=2, num_heads=4).double()
    awake(field)
    return field


def batch(num_padded: int) -> dict[str, Tensor]:
    """One point of every molecule, padded with what must not matter."""
    num_atoms = max(SIZES) + num_padded
    random = torch.Generator().manual_seed(7)
    arrays = {
        "points": torch.randn(len(SIZES), num_atoms, 4, generator=random).double(),
        "t": torch.rand(len(SIZES), generator=random).double(),
        "features": torch.randn(len(SIZES), num_atoms, NUM_FEATURES, generator=random).double(),
        "relations": torch.randint(NUM_RELATIONS, (len(SIZES), num_atoms, num_atoms)),
        "mask": torch.zeros(len(SIZES), num_atoms).double(),
    }
    for index, size in enumerate(SIZES):
        tokens = tokens_of_size(size)
        own = torch.Generator().manual_seed(100 + size)
        arrays["points"][index, :size] = torch.randn(size, 4, generator=own).double()
        arrays["features"][index, :size] = torch.tensor(tokens["features"]).double()
        arrays["relations"][index, :size, :size] = torch.tensor(tokens["relations"])
        arrays["mask"][index, :size] = 1
    return arrays


@pytest.mark.parametrize("num_padded", [0, 3])
def test_a_batch_of_different_molecules_is_each_of_them_alone(
    field: TokenField, num_padded: int
) -> None:
    arrays = batch(num_padded)
    together = field.velocity(**arrays)
    for index, size in enumerate(SIZES):
        one = slice(index, index + 1)
        alone = field.velocity(
            arrays["points"][one, :size],
            arrays["t"][one],
            arrays["features"][one, :size],
            arrays["relations"][one, :size, :size],
        )
        torch.testing.assert_close(together[one, :size], alone)


def test_the_energy_of_a_batch_of_different_molecules_is_that_of_each_alone() -> None:
    torch.manual_seed(0)
    network = TokenTransformer(
        NUM_FEATURES, width=32, depth=2, num_heads=2, num_outputs=8, num_harmonics=3
    ).double()
    arrays = batch(2)
    alone = []
    for index, size in enumerate(SIZES):
        tokens = tokens_of_size(size)
        energy = TokenEnergy(
            tokens, dim_of(tokens), width=32, depth=2, num_features=8, num_harmonics=3
        ).double()
        energy.position_network.load_state_dict(network.state_dict())
        z = energy.molecule.vectors(arrays["points"][index : index + 1, :size])
        arrays["points"][index, :size] = energy.molecule.points(z)[0]
        alone.append(energy.position_features(z))
    inputs = {name: arrays[name] for name in ("points", "features", "relations", "mask")}
    together = (network(**inputs) * arrays["mask"][..., None]).sum(1)
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-6, atol=1e-6)


def test_the_order_of_atoms_and_coordinates_means_nothing(field: TokenField) -> None:
    tokens = tokens_of_size(5)
    order = torch.tensor([3, 0, 4, 2, 1])
    shuffled: Tokens = {
        "features": torch.tensor(tokens["features"])[order].tolist(),
        "relations": torch.tensor(tokens["relations"])[order][:, order].tolist(),
        "slots": torch.tensor(tokens["slots"])[order].tolist(),
    }
    z, t = torch.randn(6, dim_of(tokens)).double(), torch.rand(6).double()
    velocity, same = (TokenVelocity(field, one).double() for one in (tokens, shuffled))
    torch.testing.assert_close(velocity(z, t), same(z, t))
    torch.manual_seed(1)
    energy = TokenEnergy(tokens, dim_of(tokens) - 1, width=16, depth=2, num_features=8).double()
    other = TokenEnergy(shuffled, dim_of(tokens) - 1, width=16, depth=2, num_features=8).double()
    other.load_state_dict(energy.state_dict())
    torch.testing.assert_close(energy(z, t), other(z, t))


def test_velocity_is_periodic_rests_on_angles_at_the_data_and_depends_on_time(
    field: TokenField,
) -> None:
    tokens = tokens_of_size(5)
    velocity = TokenVelocity(field, tokens).double()
    free = torch.tensor(tokens["slots"])[:, 3].max()
    z = torch.randn(3, dim_of(tokens)).double()
    t = torch.tensor([0.0, 0.4, 1.0]).double()
    turned = z.clone()
    turned[:, free] -= 2 * math.pi
    torch.testing.assert_close(velocity(turned, t), velocity(z, t))
    assert velocity(z, t)[0, free] == 0
    assert not torch.allclose(velocity(z, t), velocity(z, t.flip(0)))


def test_points_hold_each_coordinate_once() -> None:
    tokens = tokens_of_size(5)
    molecule = TokenVelocity(
        TokenField(NUM_FEATURES, width=8, depth=1, num_heads=2), tokens
    ).molecule
    z = torch.arange(1.0, 1 + dim_of(tokens))[None]
    points = molecule.points(z)[0]
    for atom, slots in enumerate(tokens["slots"]):
        expected = [0.0 if column < 0 else z[0, column].item() for column in slots]
        assert points[atom].tolist() == expected
    assert torch.equal(molecule.vectors(points[None]), z)


def test_config_rebuilds_a_bound_field(field: TokenField) -> None:
    tokens = tokens_of_size(4)
    velocity = TokenVelocity(field, tokens)
    twin = TokenVelocity.from_config(**velocity.config()).double()
    twin.load_state_dict(velocity.state_dict())
    z, t = torch.randn(3, dim_of(tokens)).double(), torch.rand(3).double()
    velocity.double()
    torch.testing.assert_close(twin(z, t), velocity(z, t), rtol=0, atol=0)


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    with pytest.raises(InputError, match="divisor of the width 10"):
        TokenField(NUM_FEATURES, width=10, num_heads=4)


def test_what_is_advised_against_such_heads_are_settings_that_help() -> None:
    tokens = tokens_of_size(5)
    with pytest.raises(InputError, match="take a multiple of 16") as refused:
        TokenEnergy(tokens, 4, width=70)
    assert TokenEnergy(tokens, 4, width=48).position_network.num_heads == 3
    sections = {
        "energy": EnergyConfig,
        "shared_energy": SharedEnergyConfig,
        "token_field": TokenFieldConfig,
    }
    settings = re.findall(r"(\w+)\.(\w+)", str(refused.value))
    assert {section for section, _ in settings} == set(sections)
    for section, name in settings:
        assert name in sections[section].model_fields
