"""A molecular mechanics force field evaluated for many conformations at once.

OpenMM decides the parameters; this module evaluates the same function as batched tensor
algebra with analytic forces, one order of magnitude faster than a loop over conformations. OpenMM
is imported where parameters are read: tables that were read before need it no more.
"""

from __future__ import annotations

import copy
import functools
import math
import textwrap
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Literal, Self
from xml.etree import ElementTree

import torch
from torch import Tensor, nn

from bnce_dist.chem.molecule import Molecule
from bnce_dist.chem.potentials.bonded import PairVectors
from bnce_dist.core.errors import InputError
from bnce_dist.core.places import local_path

if TYPE_CHECKING:
    import openmm
    from openmm import app

BOLTZMANN_KJ_MOL_KELVIN = 0.00831446261815324
DEFAULT_FORCE_FIELD = ("amber14-all.xml", "implicit/obc1.xml")
ImplicitSolvent = Literal["HCT", "OBC1", "OBC2", "GBn", "GBn2"]
"""What OpenMM can add to a prmtop or a psf."""
# Closer atoms count as this far apart, so that clashes give huge but finite energies; the
# analytic force keeps pushing them apart.
_MIN_DISTANCE_NM = 0.01
# Conformations evaluated at a time: the intermediate tables then stay in a core's cache.
_TILE_SIZE = 256
_Evaluate = Callable[[Tensor], tuple[Tensor, Tensor]]


def build_system(
    molecule: Molecule, force_field: Sequence[str] = DEFAULT_FORCE_FIELD
) -> openmm.System:
    """Return the OpenMM System of a molecule: no cutoff and no constraints.

    Args:
        molecule: The molecule.
        force_field: Names of OpenMM force field files.

    Raises: InputError: a file is unknown or has no parameters for the molecule.
    """
    from openmm import app

    try:
        return _load_force_field(tuple(force_field)).createSystem(
            molecule.topology, nonbondedMethod=app.NoCutoff, constraints=None, rigidWater=False
        )
    except InputError:
        raise
    except Exception as error:  # OpenMM raises bare ones, and whatever its parser meets.
        raise InputError(
            "force_field", expected=f"OpenMM files with parameters for {molecule.name}",
            got=f"{list(force_field)} ({error})",
            remedy=f"use {list(DEFAULT_FORCE_FIELD)}",
        ) from error  # fmt: skip


@functools.cache
def _load_force_field(files: tuple[str, ...]) -> app.ForceField:
    from openmm import app

    places = [local_path(file) for file in files]
    for place in places:
        _require_no_scripts(place)
    return app.ForceField(*map(str, places))


def _require_no_scripts(path: Path) -> None:
    """Refuse a file, not of OpenMM's own, from which OpenMM would run Python.

    Model files and configurations name force fields, so a stranger's could bring one.

    Raises: InputError: it holds a script, also in what it includes.
    """
    if not path.is_file():
        return
    for element in ElementTree.parse(path).iter():
        if element.tag in ("Script", "InitializationScript"):
            raise InputError(
                f"force_field {path}",
                expected="parameters alone",
                got=f"a <{element.tag}>, which would run as Python",
                remedy="remove it, or name one of OpenMM's own files",
            )
        if element.tag == "Include":
            for included in (path.parent / element.attrib["file"], Path(element.attrib["file"])):
                _require_no_scripts(included)


class ForceField(nn.Module):
    """Batched potential energy and forces of one molecule, equal to OpenMM's.

    Energies are differentiable by autograd to any order; ``energy_and_forces_kj_mol`` gives
    the forces analytically at a fraction of that cost. Build it with ``from_system``.

    Args:
        bonded: Terms ``positions -> (energy, gradient)``.
        pair_vectors: Vectors between all pairs of atoms.
        pairwise: Terms ``squared distances -> (energy, derivative)``.
        num_atoms: Number of atoms.
        temperature_kelvin: Temperature of the reduced potential [K].
    """

    def __init__(
        self,
        bonded: Sequence[nn.Module],
        pair_vectors: PairVectors,
        pairwise: Sequence[nn.Module],
        *,
        num_atoms: int,
        temperature_kelvin: float,
    ) -> None:
        super().__init__()
        self.num_atoms = num_atoms
        self.temperature_kelvin = temperature_kelvin
        self.bonded = nn.ModuleList(bonded)
        self.pair_vectors = pair_vectors
        self.pairwise = nn.ModuleList(pairwise)
        self._tile_size = _TILE_SIZE
        self._compiled: _Evaluate | None = None

    def __getstate__(self) -> dict[str, object]:
        """Leave compiled code behind: it belongs to one process and one floating-point type."""
        return {**self.__dict__, "_compiled": None}

    @classmethod
    def from_system(
        cls,
        system: openmm.System,
        temperature_kelvin: float,
        dtype: torch.dtype = torch.float64,
    ) -> Self:
        """Read an OpenMM System.

        Args:
            system: A System without cutoff and constraints, e.g. of ``build_system``.
            temperature_kelvin: Temperature of the reduced potential [K].
            dtype: float64 for weights, float32 for dynamics.

        Raises: InputError: the temperature is not positive, or the System has a force that
            is not evaluated here.
        """
        from bnce_dist.chem.potentials.system_parser import (
            bonded_terms,
            pair_terms,
            require_supported,
        )

        temperature_kelvin = require_temperature(temperature_kelvin)
        require_supported(system)
        pair_vectors, pairwise = pair_terms(system)
        force_field = cls(
            bonded_terms(system),
            pair_vectors,
            pairwise,
            num_atoms=system.getNumParticles(),
            temperature_kelvin=temperature_kelvin,
        )
        return force_field.to(dtype)

    @property
    def kt_kj_mol(self) -> float:
        """Thermal energy kT [kJ/mol]."""
        return BOLTZMANN_KJ_MOL_KELVIN * self.temperature_kelvin

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the evaluation."""
        return self.pair_vectors.incidence.dtype

    @property
    def device(self) -> torch.device:
        """Where the tables lie, and the positions must."""
        return self.pair_vectors.incidence.device

    def at_temperature(self, temperature_kelvin: float) -> Self:
        """Return the same potential energy, reduced by another temperature [K].

        Raises: InputError: it is not positive.
        """
        other = copy.copy(self)
        other.temperature_kelvin = require_temperature(temperature_kelvin)
        return other

    def astype(self, dtype: torch.dtype) -> Self:
        """Return a copy that evaluates in another floating-point type."""
        return copy.deepcopy(self).to(dtype)

    def potential_energy_kj_mol(self, positions_nm: Tensor) -> Tensor:
        """Return the potential energy, differentiable by autograd.

        Args:
            positions_nm: Atom positions, ``(batch, atoms, 3)`` [nm].

        Returns: ``(batch,)`` [kJ/mol].
        Raises: InputError: wrong shape or atom count, or a position is not finite.
        """
        require_positions(positions_nm, self.num_atoms)
        return self.energy_and_forces_kj_mol(positions_nm)[0]

    def reduced_potential(self, positions_nm: Tensor) -> Tensor:
        r"""Return the potential energy in units of kT.

        .. math:: u(x) = U(x) / k_B T

        Args:
            positions_nm: Atom positions, ``(batch, atoms, 3)`` [nm].

        Returns: ``(batch,)`` [kT].
        Raises: InputError: wrong shape or atom count, or a position is not finite.
        """
        return self.potential_energy_kj_mol(positions_nm) / self.kt_kj_mol

    def energy_and_forces_kj_mol(self, positions_nm: Tensor) -> tuple[Tensor, Tensor]:
        """Return potential energies and analytic forces, without waiting for the device.

        Args:
            positions_nm: Atom positions, ``(batch, atoms, 3)`` [nm].

        Returns: Energies ``(batch,)`` [kJ/mol] and forces ``(batch, atoms, 3)`` [kJ/mol/nm]; those
            of positions that are not finite mean nothing.
        Raises: InputError: wrong shape or atom count.
        """
        _require_shape(positions_nm, self.num_atoms)
        # Autograd needs the plain operations; nothing is recorded where it is not asked for.
        needs_graph = torch.is_grad_enabled() and positions_nm.requires_grad
        evaluate = self._evaluate if needs_graph else self._evaluate_fast
        tiles = positions_nm.to(self.dtype).permute(2, 1, 0).split(self._tile_for(positions_nm), 2)
        energies, gradients = zip(*(evaluate(tile.contiguous()) for tile in tiles), strict=True)
        return torch.cat(energies), -torch.cat(gradients, dim=2).permute(2, 1, 0)

    def compiled(self, tile_size: int = _TILE_SIZE) -> Self:
        """Return a copy that runs through ``torch.compile``: several times faster.

        The first call on a machine takes about half a minute of compilation per molecule,
        type and tile size; later ones, in any process, take seconds from the cache on disk.
        Without a working C++ compiler this warns and returns the uncompiled force field.
        Copies and pickles are uncompiled.

        Args:
            tile_size: Conformations evaluated at a time; smaller batches are padded to it.
        """
        fast = copy.deepcopy(self)
        fast._tile_size = tile_size
        # The compiler gives up on code that eight objects have run; a copy is code of its own.
        own_code = FunctionType(self._evaluate.__code__.replace(), globals())
        evaluate = MethodType(own_code, fast)
        fast._compiled = torch.compile(evaluate, dynamic=False, fullgraph=True)
        origin = torch.zeros(1, self.num_atoms, 3, dtype=self.dtype, device=self.device)
        try:
            fast.energy_and_forces_kj_mol(origin)
        except (RuntimeError, OSError) as error:
            reason = textwrap.shorten(str(error), width=150)
            warnings.warn(f"force field runs uncompiled, slower: {reason}", stacklevel=2)
            return self
        return fast

    def _tile_for(self, positions_nm: Tensor) -> int:
        """Return how many conformations are evaluated at a time: on a GPU the more the better."""
        if self._compiled is None and positions_nm.device.type != "cpu":
            return max(len(positions_nm), 1)
        return self._tile_size

    @torch.no_grad()
    def _evaluate_fast(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Evaluate one tile without autograd, padded to the compiled shape if compiled."""
        if self._compiled is None:
            return self._evaluate(positions)
        batch = positions.shape[2]
        filler = positions[:, :, -1:].expand(-1, -1, self._tile_size - batch)
        energy, gradient = self._compiled(torch.cat([positions, filler], dim=2))
        return energy[:batch], gradient[:, :, :batch]

    def _evaluate(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return energy ``(batch,)`` and gradient, both batch last: ``(3, atoms, batch)``."""
        vectors = self.pair_vectors(positions)
        squared = (vectors * vectors).sum(0).clamp_min(_MIN_DISTANCE_NM**2)
        energy, slope = torch.zeros_like(squared[0]), torch.zeros_like(squared)
        for pairwise in self.pairwise:
            term_energy, term_slope = pairwise(squared)
            energy, slope = energy + term_energy, slope + term_slope
        gradient = self.pair_vectors.transpose(2 * slope * vectors)
        for bonded in self.bonded:
            term_energy, term_gradient = bonded(positions)
            energy, gradient = energy + term_energy, gradient + term_gradient
        return energy, gradient


def require_temperature(temperature_kelvin: float) -> float:
    """Return the temperature if it is one.

    Raises: InputError: it is not a positive finite number.
    """
    if not (math.isfinite(temperature_kelvin) and temperature_kelvin > 0):
        raise InputError(
            "temperature_kelvin", expected="a positive number", got=temperature_kelvin,
            remedy="give the temperature in kelvin, e.g. 300",
        )  # fmt: skip
    return float(temperature_kelvin)


def require_positions(positions_nm: Tensor, num_atoms: int) -> None:
    """Check the shape of a batch of positions and that every one is finite.

    Raises: InputError: otherwise.
    """
    _require_shape(positions_nm, num_atoms)
    finite = torch.isfinite(positions_nm)
    if not finite.all():
        bad = int((~finite.flatten(1).all(1)).sum())
        raise InputError(
            "positions_nm", expected="finite numbers", got=f"{bad} conformations with NaN or inf",
            remedy="look at where these positions were made",
        )  # fmt: skip


def _require_shape(positions_nm: Tensor, num_atoms: int) -> None:
    shape = tuple(positions_nm.shape)
    if len(shape) != 3 or shape[1:] != (num_atoms, 3):
        raise InputError(
            "positions_nm", expected=f"shape (batch, {num_atoms}, 3)", got=f"shape {shape}",
            remedy="use positions of this molecule, in nm, with a batch axis",
        )  # fmt: skip
