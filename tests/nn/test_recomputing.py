"""Activations that are computed again: the same training in less memory."""

import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bnce_dist.core.couplings import COUPLINGS
from bnce_dist.core.interpolant import LinearInterpolant, TrigonometricInterpolant
from bnce_dist.core.molecular_flow_matching import MolecularFlowMatching, pack_conformations
from bnce_dist.core.objectives import EnergyMatching
from bnce_dist.core.path import ProductPath
from bnce_dist.nn.graphormer import GraphormerEnergy
from bnce_dist.nn.gvp import GVPVectorField
from bnce_dist.nn.recomputing import with_activation_checkpointing

NUM_ATOMS = 12


class PeakBytes(TorchDispatchMode):
    """Adds up the tensors that are alive, operation by operation."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = self._alive = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        output = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(output):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        return output

    def _count(self, storage: torch.UntypedStorage) -> None:
        address, size = storage._cdata, storage.nbytes()
        if address not in self._known:
            self._known.add(address)
            self._alive += size
            self.peak = max(self.peak, self._alive)
            weakref.finalize(storage, self._forget, address, size)

    def _forget(self, address: int, size: int) -> None:
        self._known.discard(address)
        self._alive -= size


def flow_matching() -> MolecularFlowMatching:
    """Two molecules of different size; many layers, so that one of them weighs little."""
    torch.manual_seed(0)
    field = GVPVectorField(2, num_layers=6, num_scalars=16, num_vectors=4, max_distance=8.0)
    features = [torch.rand(num_atoms, 2) for num_atoms in (NUM_ATOMS, NUM_ATOMS - 2)]
    coupling = COUPLINGS["independent"]
    return MolecularFlowMatching(field, LinearInterpolant(), features, coupling=coupling).double()


def energy_matching(num_negatives: int) -> EnergyMatching:
    """Score matching, which holds a gradient, and InfoNCE."""
    torch.manual_seed(0)
    features = torch.rand(NUM_ATOMS, 2).tolist()
    model = GraphormerEnergy(features, width=16, depth=2, num_heads=2, num_radial=8)
    path = ProductPath(TrigonometricInterpolant(), 3 * (NUM_ATOMS - 1), 0)
    return EnergyMatching(
        model,
        path,
        score_weight=1.0,
        infonce_weight=2.0,
        num_negatives=num_negatives,
        negatives="stratified",
        time_exponent=2.5,
    ).double()


def data(objective: nn.Module) -> Tensor:
    random = torch.Generator().manual_seed(1)
    if isinstance(objective, MolecularFlowMatching):
        sizes = (NUM_ATOMS, NUM_ATOMS - 2)
        return pack_conformations([torch.randn(3, n, 3, generator=random).double() for n in sizes])
    return torch.randn(6, 3 * (NUM_ATOMS - 1), generator=random, dtype=torch.float64)


def trained(objective: Any) -> tuple[dict[str, Tensor], dict[str, Tensor | None], int]:
    """Return the losses, the gradients and the most bytes that were alive on the way."""
    batch = objective.draw(data(objective), torch.Generator().manual_seed(2))
    with PeakBytes() as memory:
        losses = objective(**batch)
        losses["loss"].backward()
    return losses, {name: p.grad for name, p in objective.named_parameters()}, memory.peak


@pytest.mark.parametrize(
    "build", [flow_matching, lambda: energy_matching(8)], ids=["field", "energy"]
)
def test_the_same_training_in_less_than_half_the_memory(build: Callable[[], nn.Module]) -> None:
    losses, gradients, peak = trained(build())
    again = trained(with_activation_checkpointing(build))
    torch.testing.assert_close(again[0], losses, rtol=1e-12, atol=0.0)
    torch.testing.assert_close(again[1], gradients, rtol=1e-9, atol=1e-12)
    assert again[2] < 0.5 * peak


def test_memory_does_not_grow_with_the_number_of_negatives() -> None:
    few, many = (
        trained(with_activation_checkpointing(lambda n=number: energy_matching(n)))[2]
        for number in (2, 16)
    )
    assert many < 1.05 * few
    assert trained(energy_matching(16))[2] > 3 * trained(energy_matching(2))[2]
