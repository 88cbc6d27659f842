import json
from pathlib import Path

import pytest

from bnce_dist.chem.simulation.long_reference import FOLDER, LongReference, find_long_reference
from bnce_dist.chem.state import POSITIVE_PHI, State
from bnce_dist.core.condition import Interval, Not
from bnce_dist.core.errors import InputError

CONTENT = {
    "schema_version": 1,
    "name": "ACE-ALA-NME",
    "molecule": "abc",
    "force_field": ["a.xml", "b.xml"],
    "temperature_kelvin": 300.0,
    "state_phi": [0.0, 2.0],
    "delta_f_kT": 3.9,
    "stderr_kT": 0.02,
    "source": "benchmarks/results/reference_test.json",
}
SYSTEM = ("abc", ["a.xml", "b.xml"], 300.0, POSITIVE_PHI)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "one.json").write_text(json.dumps(CONTENT))
    return tmp_path


def test_finds_the_reference_of_the_system(folder: Path) -> None:
    found = find_long_reference(*SYSTEM, folder=folder)
    assert found is not None
    assert (found.delta_f_kT, found.stderr_kT) == (3.9, 0.02)


@pytest.mark.parametrize(
    ("position", "value"),
    [
        (0, "xyz"),
        (1, ["b.xml", "a.xml"]),
        (2, 310.0),
        (3, State.from_interval(0.0, 1.0)),
        # The same numbers of another torsion, and more than an interval.
        (3, State(Interval("psi", 0.0, 2.0), frozenset({"phi"}), "psi")),
        (3, State(Not(Interval("phi", 0.0, 2.0)), frozenset({"phi"}), "not phi")),
    ],
)
def test_another_system_has_none(folder: Path, position: int, value: object) -> None:
    system = list(SYSTEM)
    system[position] = value
    assert find_long_reference(*system, folder=folder) is None


def test_a_file_of_another_schema_is_refused(folder: Path) -> None:
    (folder / "two.json").write_text(json.dumps(CONTENT | {"extra": 1}))
    with pytest.raises(InputError, match=r"two\.json"):
        find_long_reference("none", [], 0.0, POSITIVE_PHI, folder=folder)


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.json")), ids=lambda path: path.name)
def test_shipped_references_are_converged(path: Path) -> None:
    reference = LongReference.read(path)
    assert 0 < reference.stderr_kT <= 0.03
    source = Path(__file__).parents[3] / reference.source
    assert source.exists()
