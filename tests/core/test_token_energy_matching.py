"""Energies of different molecules in one batch, against the energy matching of each alone."""

import pytest
import torch
from torch import Tensor

from bnce_dist.core.interpolant import TrigonometricInterpolant
from bnce_dist.core.objectives import EnergyMatching
from bnce_dist.core.padded_tokens import pack_vectors
from bnce_dist.core.path import ProductPath
from bnce_dist.core.random import generator
from bnce_dist.core.space import Tokens, num_stiff_of
from bnce_dist.core.token_energy_matching import TokenEnergyMatching
from bnce_dist.nn.tokens import TokenEnergy

# Bond, angle, stiff torsion, free torsion of each atom; the second molecule has two free ones.
SLOTS = (
    [[-1, -1, -1, -1], [0, -1, -1, -1], [1, 3, -1, -1], [2, 4, 5, -1]],
    [[0, -1, -1, -1], [1, 4, -1, -1], [-1, -1, -1, -1], [2, 5, -1, 7], [3, 6, -1, 8]],
)
NUM_STIFF, NUM_FREE = (6, 7), (0, 2)
TRIGONOMETRIC = TrigonometricInterpolant()


def tokens_of(index: int) -> Tokens:
    num_atoms, random = len(SLOTS[index]), generator("tokens", index)
    return {
        "features": torch.rand(num_atoms, 3, generator=random).tolist(),
        "relations": torch.randint(12, (num_atoms, num_atoms), generator=random).tolist(),
        "slots": SLOTS[index],
    }


TOKENS = [tokens_of(index) for index in range(2)]


def options(score_weight: float, infonce_weight: float) -> dict:
    return {
        "score_weight": score_weight,
        "infonce_weight": infonce_weight,
        "num_negatives": 4,
        "negatives": "stratified",
        "time_exponent": 2.5,
    }


def vectors(*key: str) -> list[Tensor]:
    dims = [stiff + free for stiff, free in zip(NUM_STIFF, NUM_FREE, strict=True)]
    return [torch.randn(8, dim, generator=generator(*key, dim)).double() for dim in dims]


@pytest.fixture
def energy() -> TokenEnergy:
    torch.manual_seed(0)
    return TokenEnergy(TOKENS[0], NUM_STIFF[0], width=32, depth=2, num_features=8).double()


def test_the_stiff_coordinates_are_counted() -> None:
    assert tuple(num_stiff_of(one) for one in TOKENS) == NUM_STIFF


@pytest.mark.parametrize("weights", [(1.0, 0.0), (0.0, 1.0), (3.0, 2.0)])
def test_the_loss_is_the_mean_of_those_of_the_molecules_alone(
    energy: TokenEnergy, weights: tuple[float, float]
) -> None:
    objective = TokenEnergyMatching(energy, TRIGONOMETRIC, TOKENS, **options(*weights)).double()
    t = torch.rand(16, generator=generator("t")).double()
    times = torch.rand(5, generator=generator("times")).double()
    rows, noise = pack_vectors(vectors("data"), TOKENS), pack_vectors(vectors("noise"), TOKENS)
    # Noise where an atom has nothing, which must not matter.
    filler = torch.randn(16, 20, generator=generator("filler")).double()
    present = objective.molecules.present[rows[:, 0].long()]
    x_noise = torch.where(present > 0, noise[:, 1:], filler)
    together = objective(rows[:, 0].long(), rows[:, 1:], x_noise, t, times)["loss"]
    alone = []
    for index, (z, own) in enumerate(zip(vectors("data"), vectors("noise"), strict=True)):
        path = ProductPath(TRIGONOMETRIC, NUM_STIFF[index], NUM_FREE[index])
        bound = energy.of_molecule(TOKENS[index], NUM_STIFF[index]).double()
        one = EnergyMatching(bound, path, **options(*weights))
        alone.append(one(z, own, t[8 * index : 8 * index + 8], times)["loss"])
    torch.testing.assert_close(together, torch.stack(alone).mean())


def test_a_step_has_gradients_also_of_the_score(energy: TokenEnergy) -> None:
    objective = TokenEnergyMatching(energy.float(), TRIGONOMETRIC, TOKENS, **options(1.0, 1.0))
    rows = pack_vectors(vectors("data"), TOKENS).float()
    drawn = objective.draw(rows, generator("draw"))
    assert drawn["molecule"].tolist() == rows[:, 0].tolist()
    assert objective.shared == {"negative_times"}
    objective(**drawn)["loss"].backward()
    gradients = [p.grad for p in objective.parameters() if p.grad is not None]
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert sum(bool(gradient.any()) for gradient in gradients) > 20
