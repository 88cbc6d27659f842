"""One contract for all models of atoms in space: their symmetries, padding and derivatives."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from bnce_dist.core.errors import InputError
from bnce_dist.nn import conformation
from bnce_dist.nn.distance_energy import DistanceNetwork
from bnce_dist.nn.graphormer import Graphormer
from bnce_dist.nn.gvp import GVPVectorField

NUM_FEATURES = 3
TOLERANCE = {"rtol": 1e-9, "atol": 1e-9}

MODELS: dict[str, Callable[[], nn.Module]] = {
    "gvp": lambda: GVPVectorField(NUM_FEATURES, num_layers=2, num_scalars=8, num_vectors=4),
    "gvp within a radius": lambda: GVPVectorField(
        NUM_FEATURES, num_layers=2, num_scalars=8, num_vectors=4, radius=4.0
    ),
    "graphormer": lambda: Graphormer(
        NUM_FEATURES, width=8, depth=2, num_heads=2, num_radial=6, max_distance=8.0
    ),
    "distance": lambda: Timeless(
        DistanceNetwork(NUM_FEATURES, 4, width=8, depth=2, num_radial=6, max_distance=8.0)
    ),
}


class Timeless(nn.Module):
    """A network of conformations alone, under the signature of the others."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(
        self, positions: Tensor, t: Tensor, node_features: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        return self.network(positions, node_features, mask)


class Batch:
    """Molecules of 6, 4 and 5 atoms, padded; atoms 1 to 3 of each are equivalent."""

    def __init__(self) -> None:
        random = torch.Generator().manual_seed(0)
        self.mask = torch.arange(6)[None] < torch.tensor([6, 4, 5])[:, None]
        # Neither noise in the padding nor a common offset may matter.
        self.positions = 2 * torch.randn(3, 6, 3, generator=random, dtype=torch.float64) + 1
        self.features = torch.randn(3, 6, NUM_FEATURES, generator=random, dtype=torch.float64)
        self.features[:, 1:4] = self.features[:, 1:2]
        self.t = torch.rand(3, generator=random, dtype=torch.float64)

    def evaluate(self, model: nn.Module, **changes: Tensor | None) -> Tensor:
        arguments = {**vars(self), **changes}
        return model(
            arguments["positions"], arguments["t"], arguments["features"], arguments["mask"]
        )


def is_field(output: Tensor) -> bool:
    """Tell a vector per atom from a scalar per molecule."""
    return output.ndim == 3


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(1)
    return MODELS[request.param]().double()


@pytest.fixture
def batch() -> Batch:
    return Batch()


@pytest.mark.parametrize("sign", [1.0, -1.0], ids=["rotation", "reflection"])
def test_rotations_and_reflections(model: nn.Module, batch: Batch, sign: float) -> None:
    random = torch.randn(3, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    rotation = torch.linalg.qr(random)[0]
    rotation = sign * rotation * torch.linalg.det(rotation).sign()
    output = batch.evaluate(model)
    turned = batch.evaluate(model, positions=batch.positions @ rotation)
    torch.testing.assert_close(
        turned, output @ rotation if is_field(output) else output, **TOLERANCE
    )
    assert output.abs().max() > 1e-3


def test_translations_of_every_molecule(model: nn.Module, batch: Batch) -> None:
    shift = torch.tensor([[[5.0, -3.0, 1.0]], [[0.0, 9.0, 0.0]], [[1.0, 1.0, 1.0]]]).double()
    moved = batch.evaluate(model, positions=batch.positions + shift)
    torch.testing.assert_close(moved, batch.evaluate(model), **TOLERANCE)


def test_atoms_may_come_in_any_order(model: nn.Module, batch: Batch) -> None:
    order = [5, 2, 0, 4, 1, 3]
    output = batch.evaluate(model)
    permuted = batch.evaluate(
        model,
        positions=batch.positions[:, order],
        features=batch.features[:, order],
        mask=batch.mask[:, order],
    )
    torch.testing.assert_close(
        permuted, output[:, order] if is_field(output) else output, **TOLERANCE
    )


def test_equivalent_atoms_may_be_exchanged(model: nn.Module, batch: Batch) -> None:
    order = [0, 3, 1, 2, 4, 5]
    output = batch.evaluate(model)
    exchanged = batch.evaluate(model, positions=batch.positions[:, order])
    torch.testing.assert_close(
        exchanged, output[:, order] if is_field(output) else output, **TOLERANCE
    )


def test_atoms_are_told_apart_by_their_features(model: nn.Module, batch: Batch) -> None:
    order = [4, 1, 2, 3, 0, 5]
    output = batch.evaluate(model)
    exchanged = batch.evaluate(model, positions=batch.positions[:, order])
    assert not torch.allclose(exchanged[0], output[0, order] if is_field(output) else output[0])


def test_padding_and_the_rest_of_the_batch_do_not_matter(model: nn.Module, batch: Batch) -> None:
    output = batch.evaluate(model)
    for index, num_atoms in enumerate(batch.mask.sum(1).tolist()):
        alone = model(
            batch.positions[index : index + 1, :num_atoms],
            batch.t[index : index + 1],
            batch.features[index, :num_atoms],
        )[0]
        if is_field(output):
            assert (output[index, num_atoms:] == 0).all()
            torch.testing.assert_close(output[index, :num_atoms], alone, **TOLERANCE)
        else:
            torch.testing.assert_close(output[index], alone, **TOLERANCE)


def test_single_precision_agrees_with_double(model: nn.Module, batch: Batch) -> None:
    output = batch.evaluate(model)
    single = batch.evaluate(model.float(), positions=batch.positions.float(), t=batch.t.float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), output, rtol=1e-4, atol=1e-4)


def test_second_derivatives_exist_and_are_finite(model: nn.Module, batch: Batch) -> None:
    positions = batch.positions.clone()
    positions[0, 1] = positions[0, 0]  # Two atoms in one place, as in bad samples.
    positions[1, 4:] = positions[2, 5:] = 0  # Padding as it is usually filled.
    positions.requires_grad_()
    output = batch.evaluate(model, positions=positions)
    (gradient,) = torch.autograd.grad(output.square().sum(), positions, create_graph=True)
    gradient.square().sum().backward()
    assert gradient.isfinite().all()
    assert gradient.abs().max() > 0
    for tensor in (positions, *model.parameters()):
        assert tensor.grad is None or tensor.grad.isfinite().all()


@pytest.mark.parametrize("model", ["gvp", "graphormer"], indirect=True)
def test_time_matters(model: nn.Module, batch: Batch) -> None:
    assert not torch.allclose(batch.evaluate(model, t=1 - batch.t), batch.evaluate(model))


@pytest.mark.parametrize(
    ("changes", "got"),
    [
        ({"features": torch.zeros(6, NUM_FEATURES + 1)}, r"\(6, 4\)"),
        ({"features": torch.zeros(5, NUM_FEATURES)}, r"\(5, 3\)"),
        ({"mask": torch.ones(3, 5)}, r"\(3, 5\)"),
    ],
)
def test_shapes_that_do_not_belong_together(
    model: nn.Module, batch: Batch, changes: dict[str, Tensor], got: str
) -> None:
    with pytest.raises(InputError, match=got):
        batch.evaluate(model, **changes)


def test_padding_without_a_mask_is_refused(model: nn.Module, batch: Batch) -> None:
    padded = batch.features * batch.mask[..., None]
    with pytest.raises(InputError, match="got none, with 2 of 3 molecules padded; give mask"):
        batch.evaluate(model, features=padded, mask=None)


# Within a radius memory depends on the geometry.
@pytest.mark.parametrize("model", ["gvp", "graphormer", "distance"], indirect=True)
def test_a_batch_too_large_for_the_machine_is_refused_before_it_is_made(model: nn.Module) -> None:
    huge = torch.empty(1, 1, 3, dtype=torch.float64).expand(10_000, 100_000, 3)
    with pytest.raises(InputError, match=r"GB, got .* GB; use"):
        model(huge, torch.zeros(10_000), torch.zeros(100_000, NUM_FEATURES))


def test_a_batch_too_large_for_the_container_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "memory.max").write_text("1000000\n")
    monkeypatch.setattr(conformation, "_CONTAINER_LIMIT", tmp_path / "memory.max")
    conformation._memory_bytes.cache_clear()
    try:
        with pytest.raises(InputError, match=r"at most 0\.0 GB"):
            conformation.require_memory(torch.zeros(200, 50, 3), 1)
    finally:
        conformation._memory_bytes.cache_clear()
