"""Transformers over the atoms of any molecule, in internal coordinates.

Every atom is a token with the bond, the angle and the torsion that place it. A batch may mix
molecules, padded to the largest; how two atoms are related in the graph biases their attention.
Points are laid out ``(batch, atoms, 4)``: bond, angle, stiff torsion and free torsion of each atom,
with zeros for what an atom does not have.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from bnce_dist.core.errors import InputError
from bnce_dist.core.interpolant import CircularInterpolant
from bnce_dist.core.padded_tokens import TokenBatch, num_stiff, points_of
from bnce_dist.core.space import NUM_RELATIONS, NUM_SLOTS, Tokens
from bnce_dist.nn.blocks import TimeEmbedding
from bnce_dist.nn.fusion import LateFusion
from bnce_dist.nn.graphormer import BiasedAttention
from bnce_dist.nn.rebuildable import Rebuildable

_HEAD_WIDTH = 16
"""Channels of a head where their number is not asked for."""


class ModulatedLayer(nn.Module):
    """Attention and a two-layer network on normed inputs that a condition stretches and shifts.

    Args:
        width: Channels of an atom.
        num_heads: Heads of the attention; they divide the width.
        num_conditions: Features of the condition; none if there is none.

    Source: Peebles and Xie (2023), arXiv 2212.09748, without gates.
    """

    def __init__(self, width: int, num_heads: int, num_conditions: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(Modulated(width, num_conditions) for _ in range(2))
        self.attention = BiasedAttention(width, num_heads)
        self.feed_forward = nn.Sequential(
            nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width)
        )

    def forward(self, hidden: Tensor, bias: Tensor, condition: Tensor | None) -> Tensor:
        """Return ``(batch, atoms, width)`` for a bias ``(batch or 1, heads, atoms, atoms)``."""
        before, between = self.norms
        hidden = hidden + self.attention(before(hidden, condition), bias)
        return hidden + self.feed_forward(between(hidden, condition))


class Modulated(nn.Module):
    """A layer norm, stretched and shifted by a linear map of a condition that starts at nothing.

    Args:
        width: Channels of an atom.
        num_conditions: Features of the condition; none if there is none.
    """

    def __init__(self, width: int, num_conditions: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.modulation = nn.Linear(num_conditions, 2 * width) if num_conditions else None
        if self.modulation is not None:
            nn.init.zeros_(self.modulation.weight)
            nn.init.zeros_(self.modulation.bias)

    def forward(self, hidden: Tensor, condition: Tensor | None) -> Tensor:
        """Return ``(batch, atoms, width)`` for a condition ``(batch, num_conditions)``."""
        normed: Tensor = self.norm(hidden)
        if self.modulation is None:
            return normed
        stretch, shift = self.modulation(condition)[:, None].chunk(2, dim=-1)
        return normed * (1 + stretch) + shift


class TokenTransformer(nn.Module):
    """Features of every atom of a molecule, from its coordinates and its place in the graph.

    Args:
        num_token_features: What tells atoms apart.
        width: Channels of an atom.
        depth: Layers.
        num_heads: Heads of the attention; they divide the width.
        num_outputs: Features of an atom that are returned.
        num_harmonics: Harmonics of every torsion that the network sees.
        num_conditions: Features of what all layers are modulated by; none if there is none.

    Raises: InputError: heads that do not divide the width.
    Source: Ying et al. (2021), arXiv 2106.05234, for the bias by distances in the graph.
    """

    harmonics: Tensor

    def __init__(
        self,
        num_token_features: int,
        *,
        width: int,
        depth: int,
        num_heads: int,
        num_outputs: int,
        num_harmonics: int,
        num_conditions: int = 0,
    ) -> None:
        super().__init__()
        if width % num_heads:
            raise InputError(
                "heads of a transformer over atoms",
                expected=f"a divisor of the width {width}",
                got=num_heads,
                remedy="take a multiple of 16 as energy.width or shared_energy.width, or of "
                "token_field.num_heads as token_field.width",
            )
        self.depth, self.num_heads = depth, num_heads
        self.register_buffer("harmonics", torch.arange(1.0, num_harmonics + 1), persistent=False)
        self.atom = nn.Linear(num_token_features, width)
        self.point = nn.Sequential(
            nn.Linear(3 + 2 * num_harmonics, width), nn.SiLU(), nn.Linear(width, width)
        )
        self.relation = nn.Embedding(NUM_RELATIONS, depth * num_heads)
        self.layers = nn.ModuleList(
            ModulatedLayer(width, num_heads, num_conditions) for _ in range(depth)
        )
        self.norm = Modulated(width, num_conditions)
        self.output = nn.Linear(width, num_outputs)

    def forward(
        self,
        points: Tensor,
        features: Tensor,
        relations: Tensor,
        mask: Tensor | None = None,
        condition: Tensor | None = None,
    ) -> Tensor:
        """Return features of every atom, ``(batch, atoms, num_outputs)``.

        Args:
            points: ``(batch, atoms, 4)``.
            features: Of the tokens, ``(batch or 1, atoms, features)``.
            relations: Of the tokens, ``(batch or 1, atoms, atoms)``.
            mask: Which atoms are real, ``(batch, atoms)``; all if absent.
            condition: What modulates the layers, ``(batch, num_conditions)``.
        """
        phases = points[..., 3:] * self.harmonics
        seen = torch.cat([points[..., :3], phases.sin(), phases.cos()], dim=-1)
        hidden = self.atom(features) + self.point(seen)
        biases = self.relation(relations).unflatten(-1, (self.depth, self.num_heads))
        biases = biases.permute(3, 0, 4, 1, 2)
        if mask is not None:
            biases = biases.masked_fill(mask[None, :, None, None, :] == 0, -torch.inf)
        for layer, bias in zip(self.layers, biases, strict=True):
            hidden = layer(hidden, bias, condition)
        return self.output(self.norm(hidden, condition))


class BoundTokens(nn.Module):
    """One molecule's tokens, and the way from its vectors to points of tokens and back.

    Args:
        tokens: Of the molecule.
    """

    features: Tensor
    relations: Tensor
    columns: Tensor
    places: Tensor

    def __init__(self, tokens: Tokens) -> None:
        super().__init__()
        slots = torch.tensor(tokens["slots"]).flatten()
        places = slots.argsort(stable=True)[int((slots < 0).sum()) :]
        features = torch.tensor(tokens["features"])[None]
        relations = torch.tensor(tokens["relations"])[None]
        # What an atom does not have is read from a column of zeros after the vector.
        columns = torch.where(slots < 0, len(places), slots)
        for name, buffer in (
            ("features", features), ("relations", relations),
            ("columns", columns), ("places", places),
        ):  # fmt: skip
            self.register_buffer(name, buffer, persistent=False)

    def points(self, z: Tensor) -> Tensor:
        """Return ``(batch, atoms, 4)`` for vectors ``(batch, dim)``."""
        padded = torch.cat([z, torch.zeros_like(z[:, :1])], dim=1)
        return padded[:, self.columns].unflatten(1, (-1, NUM_SLOTS))

    def vectors(self, points: Tensor) -> Tensor:
        """Return the coordinates that there are, ``(batch, dim)``, of ``(batch, atoms, 4)``."""
        return points.flatten(1)[:, self.places]


class TokenField(Rebuildable):
    r"""The velocity of any molecule's coordinates, with time as the modulation of every layer.

    As in ``InternalVelocity`` the free torsions' velocity is :math:`\dot\sigma(t)` times what the
    network predicts, the noise.

    Args:
        num_token_features: What tells atoms apart.
        width: Channels of an atom.
        depth: Layers.
        num_heads: Heads of the attention; they divide the width.
        num_harmonics: Harmonics of every torsion that the network sees.
        num_time_frequencies: Size of the time embedding.
        time_exponent: Warp of the time embedding (see ``TimeEmbedding``).
        circular_scale: ``scale`` of the path's circular interpolant [rad].
        circular_power: ``power`` of the path's circular interpolant.

    Raises: InputError: heads that do not divide the width.
    """

    def __init__(
        self,
        num_token_features: int,
        *,
        width: int = 64,
        depth: int = 4,
        num_heads: int = 4,
        num_harmonics: int = 4,
        num_time_frequencies: int = 16,
        time_exponent: float = 2.0,
        circular_scale: float = 4.0,
        circular_power: float = 1.5,
    ) -> None:
        super().__init__()
        self.circular = CircularInterpolant(circular_scale, circular_power)
        self.time = TimeEmbedding(num_time_frequencies, time_exponent)
        self.time_network = nn.Sequential(nn.Linear(self.time.num_features, width), nn.SiLU())
        self.transformer = TokenTransformer(
            num_token_features,
            width=width,
            depth=depth,
            num_heads=num_heads,
            num_outputs=NUM_SLOTS,
            num_harmonics=num_harmonics,
            num_conditions=width,
        )

    def velocity(
        self,
        points: Tensor,
        t: Tensor,
        features: Tensor,
        relations: Tensor,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Return the velocity of every coordinate; what an atom does not have means nothing.

        Args:
            points: ``(batch, atoms, 4)``.
            t: Times in [0, 1], ``(batch,)``.
            features: Of the tokens, ``(batch or 1, atoms, features)``.
            relations: Of the tokens, ``(batch or 1, atoms, atoms)``.
            mask: Which atoms are real, ``(batch, atoms)``; all if absent.

        Returns: ``(batch, atoms, 4)``.
        """
        condition = self.time_network(self.time(t))
        outputs = self.transformer(points, features, relations, mask, condition)
        angular = self.circular.sigma_dot(t)[:, None, None] * outputs[..., 3:]
        return torch.cat([outputs[..., :3], angular], dim=-1)


class TokenVelocity(nn.Module):
    """A field of many molecules bound to one: vectors of its internal coordinates in and out.

    Args:
        field: The field.
        tokens: Of the molecule.
    """

    architecture: ClassVar[str] = "tokens"

    def __init__(self, field: TokenField, tokens: Tokens) -> None:
        super().__init__()
        self.field, self.tokens = field, tokens
        self.molecule = BoundTokens(tokens)

    def config(self) -> dict[str, Any]:
        """Return the arguments of ``from_config``, as plain types."""
        return {"tokens": self.tokens, **self.field.config()}

    @classmethod
    def from_config(cls, tokens: Tokens, **field: Any) -> Self:
        """Return the architecture that ``config`` described, with initial weights."""
        return cls(TokenField(**field), tokens)

    def forward(self, z: Tensor, t: Tensor) -> Tensor:
        """Return the velocity, ``(batch, dim)``.

        Args:
            z: Points, ``(batch, dim)``.
            t: Times in [0, 1], ``(batch,)``.
        """
        molecule = self.molecule
        points = molecule.points(z)
        velocity = self.field.velocity(points, t, molecule.features, molecule.relations)
        return molecule.vectors(velocity)


class TokenEnergy(LateFusion):
    """Late fusion (see ``LateFusion``) of a sum over a molecule's atoms with a time.

    Args:
        tokens: Of the molecule.
        num_euclidean: Size of the Euclidean block.
        interpolant: Name of the path's Euclidean interpolant.
        width: Channels of an atom; there are ``width // 16`` heads, or one, and they divide it.
        depth: Layers.
        num_features: Outputs of ``f``.
        num_harmonics: Harmonics of every torsion that the network sees.
        time_width: Hidden features of ``g``.
        time_depth: Residual blocks of ``g``.
        num_time_frequencies: Size of the time embedding.
        time_exponent: Warp of the time embedding; best that of the objective.

    Raises: InputError: a width that heads do not divide.
    """

    architecture: ClassVar[str] = "tokens"

    def __init__(
        self,
        tokens: Tokens,
        num_euclidean: int,
        *,
        interpolant: str = "trigonometric",
        width: int = 64,
        depth: int = 4,
        num_features: int = 128,
        num_harmonics: int = 4,
        time_width: int = 128,
        time_depth: int = 1,
        num_time_frequencies: int = 16,
        time_exponent: float = 2.5,
    ) -> None:
        transformer = TokenTransformer(
            len(tokens["features"][0]),
            width=width,
            depth=depth,
            num_heads=max(width // _HEAD_WIDTH, 1),
            num_outputs=num_features,
            num_harmonics=num_harmonics,
        )
        super().__init__(
            transformer,
            num_euclidean,
            interpolant=interpolant,
            num_features=num_features,
            time_width=time_width,
            time_depth=time_depth,
            num_time_frequencies=num_time_frequencies,
            time_exponent=time_exponent,
        )
        self.molecule = BoundTokens(tokens)

    def position_features(self, z: Tensor) -> Tensor:
        """Return ``f(z)``, ``(batch, num_features)``."""
        molecule = self.molecule
        points = molecule.points(z)
        of_atoms: Tensor = self.position_network(points, molecule.features, molecule.relations)
        return of_atoms.sum(1)

    def of_batch(self, batch: TokenBatch) -> "BatchEnergy":
        """Return the same energy for the molecules of a batch."""
        return BatchEnergy(self, batch)

    def of_molecule(self, tokens: Tokens, num_euclidean: int) -> "TokenEnergy":
        """Return a copy for another molecule.

        Args:
            tokens: Of the molecule.
            num_euclidean: Size of its Euclidean block.
        """
        own = {**self.config(), "tokens": tokens, "num_euclidean": num_euclidean}
        energy = TokenEnergy(**own)
        energy.load_state_dict(self.state_dict())
        return energy


@dataclass(frozen=True)
class BatchEnergy:
    """The energy of points of a batch that mixes molecules, laid out as ``core.padded_tokens``.

    Args:
        energy: Of any molecule: its weights belong to all.
        batch: The molecules.
    """

    energy: TokenEnergy
    batch: TokenBatch

    def __call__(self, z: Tensor, t: Tensor) -> Tensor:
        """Return ``U_t(z)``, ``(batch,)``, for ``z``, ``(batch, 4 atoms)``."""
        return self.energy.fused(self._position_factor(z), t)

    def forward_with_times(self, z: Tensor, t: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``U_t(z)``, ``(batch,)``, and ``U`` at all ``times``, ``(batch, times)``."""
        return self.energy.fused_with_times(self._position_factor(z), t, times)

    def _position_factor(self, z: Tensor) -> Tensor:
        batch = self.batch
        of_atoms = self.energy.position_network(
            points_of(z), batch.features, batch.relations, batch.mask
        )
        features = (of_atoms * batch.mask[..., None]).sum(1)
        return self.energy.position_factor(features, z[:, : num_stiff(z)])
