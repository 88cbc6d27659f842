"""Free energies of a finished run between states of the user's choice."""

import csv
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bnce_dist.chem.state import members
from bnce_dist.core.errors import InputError
from bnce_dist.core.random import seed_from
from bnce_dist.core.states import (
    REST,
    StateFreeEnergies,
    replica_state_free_energies,
    state_free_energies,
)
from bnce_dist.data.atomic import atomic_path, write_json
from bnce_dist.runs.finished import FinishedRun
from bnce_dist.runs.profile import REFERENCE, REWEIGHTED

_NAME = re.compile(r"\w[\w.+-]*")
_HEADER = (
    *("Ensemble", "State", "Condition", "Samples", "Effective samples", "Pareto k"),
    "May hide [kT]",
    *("Weight", "Weight error", "Free energy [kT]", "Free energy error [kT]", "Fault"),
)
_LEFT_OUT = (
    "Errors are of sampling alone. By what its tail may hide, a state's weight may be larger and "
    "its free energy lower."
)


@dataclass(frozen=True)
class States:
    """Free energies of several states of a run.

    Args:
        conditions: What each state is, by its name.
        ensembles: By the run's weighted samples and, where its frames are there, its reference.
    """

    conditions: Mapping[str, str]
    ensembles: Mapping[str, StateFreeEnergies]

    def lines(self) -> Iterator[str]:
        """Yield a table for people, and what its errors leave out."""
        for ensemble, found in self.ensembles.items():
            yield f"{ensemble:<16} {'weight':<20} {'free energy':<20} effective samples"
            for name, evidence in found.evidence.items():
                if evidence.fault is not None:
                    yield f"  {name:<14} no number: {evidence.fault}"
                    continue
                row = found.names.index(name)
                weight = _with_error(found.weights[row], found.weight_stderrs[row], 4)
                value = _with_error(found.free_energies_kT[row], found.stderrs_kT[row], 2)
                effective = f"{evidence.ess:.0f} of {evidence.num_samples}"
                if evidence.hidden_kT is not None:
                    effective += f", may hide {evidence.hidden_kT:.2f} kT"
                elif evidence.pareto_k is not None:
                    effective += ", may hide any weight"
                yield f"  {name:<14} {weight:<20} {value + ' kT':<20} {effective}"
            for row, name in enumerate(found.names):
                for column in range(row + 1, len(found.names)):
                    difference = _with_error(
                        found.differences_kT[row, column],
                        found.difference_stderrs_kT[row, column],
                        2,
                    )
                    yield f"  {name} - {found.names[column]}: {difference} kT"
        yield _LEFT_OUT

    def record(self) -> dict[str, Any]:
        """Return everything as plain JSON; what is not known is None."""
        return {
            "conditions": dict(self.conditions),
            "ensembles": {name.lower(): _record(found) for name, found in self.ensembles.items()},
        }

    def write(self, stem: Path) -> list[Path]:
        """Write ``<stem>.json`` and the table ``<stem>.csv``, each whole or not at all.

        Args:
            stem: Where, without a suffix.
        """
        record, table = stem.with_name(f"{stem.name}.json"), stem.with_name(f"{stem.name}.csv")
        write_json(record, self.record())
        with atomic_path(table) as temporary, temporary.open("w", newline="") as stream:
            csv.writer(stream).writerows([_HEADER, *self._rows()])
        return [record, table]

    def _rows(self) -> Iterator[list[object]]:
        for ensemble, found in self.ensembles.items():
            for name, evidence in found.evidence.items():
                row: list[object] = [ensemble, name, self.conditions.get(name, "everything else")]
                row += [evidence.num_samples, f"{evidence.ess:.1f}"]
                row += [_number(evidence.pareto_k), _number(evidence.hidden_kT)]
                if evidence.fault is None:
                    at = found.names.index(name)
                    columns = (
                        *(found.weights, found.weight_stderrs),
                        *(found.free_energies_kT, found.stderrs_kT),
                    )
                    yield [*row, *(_number(column[at]) for column in columns), ""]
                else:
                    yield [*row, "", "", "", "", evidence.fault]


def states(folder: Path, conditions: Mapping[str, str], *, num_bootstrap: int = 500) -> States:
    """Return the free energies of states of a finished run, and all differences between them.

    What is in none of them is the state `rest`; of a single state the difference to it is the
    ``delta_f`` of a run.

    Args:
        folder: Of the run.
        conditions: What each state is, by a name for it: intervals of order parameters joined by
            ``and``, ``or`` and ``not``, such as ``"phi in [0, 2] and not psi in [2, -2]"`` or
            ``"distance(2:N,2:O) in [0, 0.35]"`` [rad, nm].
        num_bootstrap: Replicates behind the errors.

    Raises: InputError: no finished run, no state, a condition that cannot be read, or states that
        share samples.
    """
    _require_names(conditions)
    run = FinishedRun.open(folder)
    molecule, samples = run.target.molecule, run.evaluation.samples
    options = {"num_bootstrap": num_bootstrap, "seed": seed_from(run.config.seed, "bootstrap")}
    positions = run.positions_nm()
    ensembles = {
        REWEIGHTED: state_free_energies(
            samples.log_weights_learned,
            samples.log_weights_exact,
            {name: members(molecule, text, positions) for name, text in conditions.items()},
            num_random=samples.num_random,
            inclusion=samples.inclusion,
            **options,
        )
    }
    frames = run.reference_frames()
    if frames is not None:
        ensembles[REFERENCE] = replica_state_free_energies(
            frames.log_weights,
            frames.replica,
            {n: members(molecule, text, frames.positions_nm) for n, text in conditions.items()},
            **options,
        )
    return States(dict(conditions), ensembles)


def _require_names(conditions: Mapping[str, str]) -> None:
    """Refuse names that are none, before anything is read.

    Raises: InputError: no state, or a name of anything but letters, digits and ``_.+-``.
    """
    if not conditions:
        raise InputError(
            "states", expected="one or more", got="none", remedy='name one: "c7ax=phi in [0, 2]"'
        )
    for name in conditions:
        if _NAME.fullmatch(name) is None or name == REST:
            raise InputError(
                "name of a state",
                expected=f"letters, digits, '_', '.', '+' or '-', other than {REST}",
                got=repr(name),
                remedy='write e.g. "c7ax=phi in [0, 2]"',
            )


def _record(found: StateFreeEnergies) -> dict[str, Any]:
    return {
        "names": list(found.names),
        "weights": _plain(found.weights),
        "weight_stderrs": _plain(found.weight_stderrs),
        "free_energies_kT": _plain(found.free_energies_kT),
        "free_energy_stderrs_kT": _plain(found.stderrs_kT),
        "covariance_kT2": _plain(found.covariance_kT2),
        "differences_kT": _plain(found.differences_kT),
        "difference_stderrs_kT": _plain(found.difference_stderrs_kT),
        "evidence": {
            name: {
                "num_samples": evidence.num_samples,
                "ess": evidence.ess,
                "pareto_k": evidence.pareto_k,
                "hidden_kT": evidence.hidden_kT,
                "fault": evidence.fault,
            }
            for name, evidence in found.evidence.items()
        },
    }


def _plain(array: Any) -> Any:
    """Return lists of numbers, None in the place of those that are not known."""
    if getattr(array, "ndim", 0):
        return [_plain(part) for part in array]
    return float(array) if math.isfinite(array) else None


def _with_error(value: float, error: float, digits: int) -> str:
    return f"{value:.{digits}f}" + (f" +- {error:.{digits}f}" if math.isfinite(error) else "")


def _number(value: float | None) -> str:
    """Return five significant digits, and nothing for what is not known."""
    return f"{value:.5g}" if value is not None and math.isfinite(value) else ""
