"""Coulomb, Lennard-Jones and generalised Born terms over all pairs of atoms.

The functions of a pair see only its squared distance, ``(pairs, batch)``, and return an energy
``(batch,)`` [kJ/mol] with its derivative by each squared distance [kJ/mol/nm^2].
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn


class CoulombLennardJones(nn.Module):
    r"""Coulomb and Lennard-Jones, :math:`\frac{q}{r} + \frac{c_{12}}{r^{12}} - \frac{c_6}{r^6}`.

    Exclusions and 1-4 scaling are folded into the tables, so no pair is special.

    Args:
        charge_product: Coulomb constant times both charges, ``(pairs,)`` [kJ nm/mol].
        c6: Attraction, ``(pairs,)`` [kJ nm^6/mol].
        c12: Repulsion, ``(pairs,)`` [kJ nm^12/mol].
    """

    charge_product: Tensor
    c6: Tensor
    c12: Tensor

    def __init__(self, charge_product: Tensor, c6: Tensor, c12: Tensor) -> None:
        super().__init__()
        self.register_buffer("charge_product", charge_product[:, None])
        self.register_buffer("c6", c6[:, None])
        self.register_buffer("c12", c12[:, None])

    def forward(self, squared: Tensor) -> tuple[Tensor, Tensor]:
        """Return energy and derivative by the squared distances."""
        inverse_squared = 1 / squared
        inverse_sixth = inverse_squared * inverse_squared * inverse_squared
        coulomb = self.charge_product * inverse_squared.sqrt()
        repulsion = self.c12 * inverse_sixth * inverse_sixth
        attraction = self.c6 * inverse_sixth
        energy = (coulomb + repulsion - attraction).sum(0)
        return energy, (-0.5 * coulomb - 6 * repulsion + 3 * attraction) * inverse_squared


class SomePairs(nn.Module):
    """Some of all pairs of atoms, possibly repeated.

    Args:
        rows: Which pairs, ``(terms,)``.
        num_pairs: Number of all pairs.
    """

    rows: Tensor
    terms: Tensor

    def __init__(self, rows: Tensor, num_pairs: int) -> None:
        super().__init__()
        # What is added to a pair is gathered, not scattered: fast, and the same every time.
        terms_of: list[list[int]] = [[] for _ in range(num_pairs)]
        for term, row in enumerate(rows.tolist()):
            terms_of[row].append(term)
        most = max([1, *map(len, terms_of)])
        padded = [terms + [len(rows)] * (most - len(terms)) for terms in terms_of]
        self.register_buffer("rows", rows)
        self.register_buffer("terms", torch.tensor(padded, dtype=torch.long).reshape(-1, most).T)
        self.are_all = rows.tolist() == list(range(num_pairs))

    def forward(self, of_pairs: Tensor) -> Tensor:
        """Return ``(terms, batch)`` of what is ``(pairs, batch)``."""
        return of_pairs if self.are_all else of_pairs.index_select(0, self.rows)

    def transpose(self, of_terms: Tensor) -> Tensor:
        """Return ``(pairs, batch)``, sums over the terms ``(terms, batch)`` of each pair."""
        if self.are_all:
            return of_terms
        padded = nn.functional.pad(of_terms, (0, 0, 0, 1))  # a row of zeros after the last
        return padded.index_select(0, self.terms.flatten()).unflatten(0, self.terms.shape).sum(0)


def pair_parameters(parameters: Mapping[str, Tensor], ends: Tensor) -> dict[str, Tensor]:
    """Return the parameters of the first and second atoms of pairs, names with 1 and 2.

    Args:
        parameters: Parameters of the atoms by name, ``(atoms,)`` each.
        ends: First and second atoms, ``(2, terms)``.

    Returns: ``(terms, 1)`` each.
    """
    return {
        name + end: values[atoms][:, None]
        for name, values in parameters.items()
        for end, atoms in zip("12", ends, strict=True)
    }


class FunctionOfDistance(nn.Module):
    """A function of the distances of some pairs.

    Args:
        energy: The function of distances ``(terms, batch)`` [nm].
        pairs: Which pairs.
    """

    def __init__(self, energy: nn.Module, pairs: SomePairs) -> None:
        super().__init__()
        self.energy = energy
        self.pairs = pairs

    def forward(self, squared: Tensor) -> tuple[Tensor, Tensor]:
        """Return energy and derivative by the squared distances."""
        distance = self.pairs(squared).sqrt()
        energy, slope = self.energy(distance)
        return energy, self.pairs.transpose(0.5 * slope / distance)


@dataclass(frozen=True)
class BornParameters:
    """Parameters of an Onufriev-Bashford-Case model.

    Args:
        charge: ``(atoms,)`` [e].
        radius_nm: Intrinsic Born radii, ``(atoms,)`` [nm].
        scale: Descreening scale factors, ``(atoms,)``.
        tanh_coefficients: alpha, beta, gamma of ``tanh(alpha psi - beta psi^2 + gamma psi^3)``.
        coulomb_constant: Coulomb constant times (1/solute - 1/solvent dielectric) [kJ nm/mol/e^2].
        surface_tension: Prefactor of the surface term [kJ/mol/nm^2].
        fills_engulfed: Whether the volume of a neighbour that swallows the whole atom counts in
            full, as in OpenMM's GBSAOBCForce but not in its CustomGBForce strings.
    """

    charge: Tensor
    radius_nm: Tensor
    scale: Tensor
    tanh_coefficients: tuple[float, float, float]
    coulomb_constant: float
    surface_tension: float
    fills_engulfed: bool


OFFSET_NM = 0.009
PROBE_NM = 0.14


class GeneralizedBorn(nn.Module):
    r"""Implicit solvent by generalised Born with Onufriev-Bashford-Case radii and surface term.

    .. math:: E = -k \Big(\sum_{i<j} \frac{q_i q_j}{f_{ij}} + \sum_i \frac{q_i^2}{2 B_i}\Big)
              + \gamma \sum_i (\rho_i + \rho_p)^2 (\rho_i / B_i)^6, \quad
              f^2 = r^2 + B_i B_j e^{-r^2 / 4 B_i B_j}

    Args:
        parameters: Per-atom and global parameters.
        first: First atom of every pair, ``(pairs,)``.
        second: Second atom of every pair, ``(pairs,)``.

    Source: Onufriev, Bashford and Case, Proteins 55, 383 (2004); surface term of
    Schaefer, Bartels and Karplus, J. Mol. Biol. 284, 835 (1998).
    """

    own: Tensor
    membership: Tensor
    own_radius: Tensor
    other_radius: Tensor
    pair_charge: Tensor
    self_charge: Tensor
    surface: Tensor
    radius: Tensor
    offset_radius: Tensor

    def __init__(self, parameters: BornParameters, first: Tensor, second: Tensor) -> None:
        super().__init__()
        self.tanh_coefficients = parameters.tanh_coefficients
        self.fills_engulfed = parameters.fills_engulfed
        offset_radius = parameters.radius_nm - OFFSET_NM
        own, other = torch.cat([first, second]), torch.cat([second, first])
        membership = torch.zeros(len(offset_radius), len(own), dtype=torch.float64)
        membership[own, torch.arange(len(own))] = 1
        charge, radius = parameters.charge, parameters.radius_nm
        constant = parameters.coulomb_constant
        surface = parameters.surface_tension * (radius + PROBE_NM) ** 2 * radius**6
        tables = {
            "own": own,
            "membership": membership,
            "own_radius": offset_radius[own].reshape(2, -1, 1),
            "other_radius": (parameters.scale * offset_radius)[other].reshape(2, -1, 1),
            "pair_charge": (-constant * charge[first] * charge[second])[:, None],
            "self_charge": (-0.5 * constant * charge**2)[:, None],
            "surface": surface[:, None],
            "radius": radius[:, None],
            "offset_radius": offset_radius[:, None],
        }
        for name, table in tables.items():
            self.register_buffer(name, table)

    def forward(self, squared: Tensor) -> tuple[Tensor, Tensor]:
        """Return energy and derivative by the squared distances."""
        descreening, descreening_slope = self._descreening(squared)
        born, born_slope = self._born_radii(self.membership @ descreening.flatten(0, 1))

        own_born = born.index_select(0, self.own).unflatten(0, (2, -1))
        product = own_born[0] * own_born[1]
        ratio = squared / (4 * product)
        exponential = torch.exp(-ratio)
        screened = product * exponential
        inverse = (squared + screened).rsqrt()
        pair_energy = self.pair_charge * inverse
        pair_slope = -0.5 * pair_energy * inverse * inverse  # dE/df^2
        by_log_product = pair_slope * screened * (1 + ratio)

        self_energy = self.self_charge / born
        surface_energy = self.surface / born**6
        energy = pair_energy.sum(0) + (self_energy + surface_energy).sum(0)

        by_log_born = self.membership @ torch.cat([by_log_product, by_log_product])
        by_log_born = by_log_born - self_energy - 6 * surface_energy
        chain = (by_log_born * born_slope).index_select(0, self.own).unflatten(0, (2, -1))
        by_descreening = (chain * descreening_slope).sum(0)
        return energy, pair_slope * (1 - 0.25 * exponential) + by_descreening

    def _descreening(self, squared: Tensor) -> tuple[Tensor, Tensor]:
        """Return each pair's descreening integral and its derivative by the squared distance.

        Both are ``(2, pairs, batch)``: first atom by second, then second by first. The limits
        of integration L and U contribute nothing to the derivative except where an atom is
        engulfed (L = s - r), because the integrand vanishes there.
        """
        distance = squared.sqrt()
        inverse = 1 / distance
        edge = distance - self.other_radius
        lower = 1 / torch.maximum(edge.abs(), self.own_radius)
        # U = max(r + s, own radius) gives zero, as it must, for a neighbour inside the atom.
        upper = 1 / torch.maximum(distance + self.other_radius, self.own_radius)
        quarter = 0.25 * (upper * upper - lower * lower)
        near = distance * quarter
        far = self.other_radius * self.other_radius * inverse * quarter
        logarithm = 0.5 * torch.log(upper / lower) * inverse
        integral = 0.5 * (lower - upper + near - far + logarithm)
        slope = 0.25 * (near + far - logarithm) * inverse * inverse
        engulfed = (edge < -self.own_radius).to(squared.dtype)
        if self.fills_engulfed:
            return integral + engulfed * (1 / self.own_radius - lower), slope
        return integral, slope + engulfed * (0.5 * lower * lower) * inverse

    def _born_radii(self, integral: Tensor) -> tuple[Tensor, Tensor]:
        """Return the Born radii ``(atoms, batch)`` [nm] and d(log radius)/d(integral)."""
        alpha, beta, gamma = self.tanh_coefficients
        psi = integral * self.offset_radius
        tanh = torch.tanh(((gamma * psi - beta) * psi + alpha) * psi)
        polynomial_slope = (3 * gamma * psi - 2 * beta) * psi + alpha
        born = 1 / (1 / self.offset_radius - tanh / self.radius)
        slope = born / self.radius * (1 - tanh * tanh) * polynomial_slope * self.offset_radius
        return born, slope
