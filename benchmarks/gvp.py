"""Molecules per CPU-second through the GVP field: dense factored messages against edge lists.

An edge list forms all vectors of every edge, passes them through the same perceptrons with the
same weights and sums per receiver. It is measured as published, with vectors (edges, channels, 3),
and tuned: channels last, which makes its products plain matrix products, and the dense form's
radial basis. All take alternating rounds on one thread, so that whatever else the machine does
hits all alike.

    OMP_NUM_THREADS=1 python benchmarks/gvp.py --write
"""

import time
from collections.abc import Callable
from typing import Annotated

import torch
import typer
from record import publish, summary
from torch import Tensor
from torch.nn import functional as F

from bnce_dist.nn.gvp import GVP, GVPLayer, GVPVectorField

NUM_ATOMS, NUM_FEATURES = 22, 21
Field = Callable[[Tensor, Tensor, Tensor], Tensor]


def main(
    batch_size: Annotated[int, typer.Option(help="Molecules at a time.")] = 256,
    rounds: Annotated[int, typer.Option(help="Repetitions of each measurement.")] = 7,
    write: Annotated[bool, typer.Option("--write", help="Also write the record.")] = False,
) -> None:
    """Measure, print one JSON line and write it if asked."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    field = GVPVectorField(NUM_FEATURES)
    inputs = (
        1.6 * torch.randn(batch_size, NUM_ATOMS, 3),
        torch.rand(batch_size),
        torch.eye(NUM_ATOMS, NUM_FEATURES),
    )
    fields: dict[str, Field] = {
        "edge_list": EdgeList(field, batch_size, published_messages),
        "tuned_edge_list": EdgeList(field, batch_size, tuned_messages),
        "dense": field,
    }
    rates: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name, evaluate in fields.items():
            for mode, work in (("forward", forward), ("training", training_step)):
                seconds = processor_time(work, evaluate, inputs)
                rates.setdefault(f"{name}_{mode}", []).append(batch_size / seconds)
    with torch.no_grad():
        outputs = [evaluate(*inputs) for evaluate in fields.values()]
    largest = max(float((output - outputs[0]).abs().max()) for output in outputs)
    numbers = {
        "unit": "molecules of 22 atoms per CPU-second, one thread",
        "model": "5 layers, 64 scalars, 16 vectors (as published)",
        "batch_size": batch_size,
        "rounds": rounds,
        **{name: summary(values) for name, values in rates.items()},
        **{
            f"dense_over_{baseline}_{mode}": ratio(rates, baseline, mode)
            for baseline in ("edge_list", "tuned_edge_list")
            for mode in ("forward", "training")
        },
        "max_difference": largest,
    }
    publish("gvp", numbers, ("torch",), write=write)


def forward(field: Field, inputs: tuple[Tensor, Tensor, Tensor]) -> None:
    """Evaluate without derivatives, as in sampling."""
    with torch.no_grad():
        field(*inputs)


def training_step(field: Field, inputs: tuple[Tensor, Tensor, Tensor]) -> None:
    """Evaluate and differentiate by the weights."""
    field(*inputs).square().mean().backward()


def processor_time(work: Callable[..., None], *arguments: object) -> float:
    """Return the seconds of CPU time that one call takes."""
    start = time.process_time()
    work(*arguments)
    return time.process_time() - start


def ratio(rates: dict[str, list[float]], baseline: str, mode: str) -> dict[str, float]:
    """Return how many times faster the dense form is, round by round."""
    pairs = zip(rates[f"dense_{mode}"], rates[f"{baseline}_{mode}"], strict=True)
    return summary([dense / edge_list for dense, edge_list in pairs])


def published_messages(
    layer: GVPLayer, scalars: Tensor, vectors: Tensor, distance: Tensor, direction: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the messages of all edges, formed from vectors ``(edges, channels, 3)``.

    Args:
        layer: Whose perceptron and radial basis to use.
        scalars: Of the sender, ``(edges, scalars)``.
        vectors: Of the sender, ``(edges, 3, channels)``.
        distance: Of the edge, ``(edges,)``.
        direction: Of the edge, ``(edges, 3)``.
    """
    message, basis = layer.message, layer.radial
    radial = torch.exp(-((distance[:, None] - basis.centres) / basis.width).square())
    stacked = torch.cat([direction[:, None], vectors.transpose(1, 2)], dim=1)
    hidden = torch.einsum("evc,vh->ehc", stacked, message.hidden)
    mixed = torch.einsum("ehc,hu->euc", hidden, message.mixed)
    norms = hidden.square().sum(2).clamp(min=1e-8).sqrt()
    new = message.activation(message.scalars(torch.cat([scalars, radial, norms], dim=1)))
    gated = message.gate_activation(message.gate(new))[:, :, None] * mixed
    return new, gated.transpose(1, 2)


def tuned_messages(
    layer: GVPLayer, scalars: Tensor, vectors: Tensor, distance: Tensor, direction: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the same with the channels last and the radial basis of the dense form."""
    inputs = torch.cat([scalars, layer.radial(distance)], dim=1)
    return GVP.forward(layer.message, inputs, torch.cat([direction[..., None], vectors], dim=2))


class EdgeList:
    """The same field with its messages formed edge by edge.

    Args:
        field: Whose weights to use.
        batch_size: Molecules in a batch; their edges are made once.
        messages: How the messages are formed.
    """

    def __init__(
        self,
        field: GVPVectorField,
        batch_size: int,
        messages: Callable[[GVPLayer, Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]],
    ) -> None:
        self.field = field
        self.messages = messages
        first = NUM_ATOMS * torch.arange(batch_size)[:, None]
        receiver, sender = (1 - torch.eye(NUM_ATOMS)).nonzero().T
        self.receiver, self.sender = (first + receiver).flatten(), (first + sender).flatten()

    def __call__(self, positions: Tensor, t: Tensor, node_features: Tensor) -> Tensor:
        """Return the field's output, ``(batch, atoms, 3)``."""
        batch = len(positions)
        times = t.repeat_interleave(NUM_ATOMS)[:, None]
        inputs = torch.cat([node_features.repeat(batch, 1), times], dim=1)
        scalars = F.silu(self.field.embedding(inputs))
        vectors = scalars.new_zeros(len(scalars), 3, self.field.num_vectors)
        x = positions.flatten(0, 1)
        for layer in self.field.layers:
            scalars, vectors, x = self._layer(layer, scalars, vectors, x)
        return self.field.output(scalars, vectors)[1].view_as(positions)

    def _layer(
        self, layer: GVPLayer, scalars: Tensor, vectors: Tensor, x: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        difference = x[self.sender] - x[self.receiver]
        distance = difference.square().sum(1).clamp(min=1e-8).sqrt()
        direction = difference / distance[:, None]
        senders = scalars[self.sender], vectors[self.sender]
        sent = self.messages(layer, *senders, distance, direction)
        received = (
            torch.zeros_like(old).index_add(0, self.receiver, new) / layer.message_scale
            for old, new in zip((scalars, vectors), sent, strict=True)
        )
        return layer.updated(scalars, vectors, x, *received)


if __name__ == "__main__":
    typer.run(main)
