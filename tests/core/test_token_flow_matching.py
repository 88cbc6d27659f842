"""Vectors of different molecules in one batch, against the flow matching of each alone."""

import pytest
import torch
from torch import Tensor

from bnce_dist.core.interpolant import TrigonometricInterpolant
from bnce_dist.core.objectives import FlowMatching
from bnce_dist.core.padded_tokens import pack_vectors
from bnce_dist.core.path import ProductPath
from bnce_dist.core.random import generator
from bnce_dist.core.space import Tokens
from bnce_dist.core.token_flow_matching import TokenFlowMatching
from bnce_dist.nn.tokens import TokenField, TokenVelocity

# Bond, angle, stiff torsion, free torsion of each atom; the second molecule has two free ones.
SLOTS = (
    [[-1, -1, -1, -1], [0, -1, -1, -1], [1, 3, -1, -1], [2, 4, 5, -1]],
    [[0, -1, -1, -1], [1, 4, -1, -1], [-1, -1, -1, -1], [2, 5, -1, 7], [3, 6, -1, 8]],
)
NUM_FREE = (0, 2)
TRIGONOMETRIC = TrigonometricInterpolant()


def tokens_of(index: int) -> Tokens:
    num_atoms, random = len(SLOTS[index]), generator("tokens", index)
    return {
        "features": torch.rand(num_atoms, 3, generator=random).tolist(),
        "relations": torch.randint(12, (num_atoms, num_atoms), generator=random).tolist(),
        "slots": SLOTS[index],
    }


TOKENS = [tokens_of(index) for index in range(2)]
DIMS = (6, 9)


def vectors(*key: str) -> list[Tensor]:
    return [torch.randn(8, dim, generator=generator(*key, dim)) for dim in DIMS]


@pytest.fixture
def objective() -> TokenFlowMatching:
    torch.manual_seed(0)
    field = TokenField(3, width=16, depth=2, num_heads=2)
    return TokenFlowMatching(field, TRIGONOMETRIC, TOKENS)


def test_packed_rows_hold_the_coordinates_by_atoms() -> None:
    rows = pack_vectors(vectors("data"), TOKENS)
    assert rows.shape == (16, 1 + 4 * 5)
    assert rows[:, 0].tolist() == [0] * 8 + [1] * 8
    for index, z in enumerate(vectors("data")):
        row = rows[8 * index, 1:]
        stiff, free = row[:15].view(5, 3), row[15:]
        for atom, (bond, angle, narrow, turning) in enumerate(SLOTS[index]):
            expected = [
                0.0 if column < 0 else z[0, column].item() for column in (bond, angle, narrow)
            ]
            assert stiff[atom].tolist() == expected
            assert free[atom] == (0.0 if turning < 0 else z[0, turning])
        assert row.count_nonzero() == DIMS[index]


def test_the_loss_is_the_mean_of_those_of_the_molecules_alone(objective: TokenFlowMatching) -> None:
    t = torch.rand(16, generator=generator("t"))
    rows, noise = pack_vectors(vectors("data"), TOKENS), pack_vectors(vectors("noise"), TOKENS)
    # Noise where an atom has nothing, which must not matter.
    filler = torch.randn(16, 20, generator=generator("filler"))
    x_noise = torch.where(objective.molecules.present[rows[:, 0].long()] > 0, noise[:, 1:], filler)
    together = objective(rows[:, 0].long(), rows[:, 1:], x_noise, t)["loss"]
    alone = []
    for index, (z, own) in enumerate(zip(vectors("data"), vectors("noise"), strict=True)):
        path = ProductPath(TRIGONOMETRIC, DIMS[index] - NUM_FREE[index], NUM_FREE[index])
        velocity = TokenVelocity(objective.velocity_field, TOKENS[index])
        part = slice(8 * index, 8 * index + 8)
        alone.append(FlowMatching(velocity, path)(z, own, t[part])["loss"])
    torch.testing.assert_close(together, torch.stack(alone).mean())


def test_a_step_is_drawn_of_packed_rows_and_has_gradients(objective: TokenFlowMatching) -> None:
    rows = pack_vectors(vectors("data"), TOKENS)
    drawn = objective.draw(rows, generator("draw"))
    assert drawn["molecule"].tolist() == rows[:, 0].tolist()
    assert torch.equal(drawn["x_data"], rows[:, 1:])
    objective(**drawn)["loss"].backward()
    gradients = [p.grad for p in objective.parameters() if p.grad is not None]
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert sum(bool(gradient.any()) for gradient in gradients) > 10
