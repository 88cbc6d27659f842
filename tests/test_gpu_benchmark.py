"""The script for a machine with a GPU runs where there is none, and without heavy packages."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bnce_dist.chem.molecule import Molecule
from bnce_dist.chem.potentials.force_field import ForceField, build_system

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "benchmarks" / "gpu.py"
BLOCKED = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"openmm", "mdtraj", "ray", "mlflow", "pymbar"}:
            raise ImportError(f"{name} is blocked")
sys.meta_path.insert(0, Blocked())
"""


@pytest.fixture(autouse=True)
def _scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(SCRIPT.parent)


def test_every_part_runs_without_openmm_mdtraj_ray_and_mlflow(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(BLOCKED)
    lines = tmp_path / "lines.jsonl"
    done = subprocess.run(
        [
            sys.executable,
            SCRIPT,
            *("--device", "cpu", "--tiny", "--seconds", "600", "--output", lines),
        ],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in lines.read_text().splitlines()]
    assert [row for row in rows if "error" in row] == []
    assert done.stdout == lines.read_text()
    measured = {row["part"] for row in rows if "rate" in row or "seconds" in row}
    from gpu import PARTS

    assert measured == PARTS.keys() - {"memory"}
    for row in rows:
        if "rate" in row and row["precision"] == "fp32":
            assert row["check"], row
            assert max(one["max_relative"] for one in row["check"].values()) < 0.01, row
            assert not row["host_copies_per_call"], row


@pytest.mark.parametrize("sequence", ["ACE-ALA-NME", "KS"])
def test_the_committed_tables_give_the_energies_of_openmms_parameters(sequence: str) -> None:
    import gpu_inputs

    target = gpu_inputs.load().targets[sequence]
    molecule = Molecule.from_sequence(sequence)
    expected = ForceField.from_system(
        build_system(molecule), gpu_inputs.TEMPERATURES_KELVIN[sequence]
    )
    noise = torch.randn(4, molecule.num_atoms, 3, generator=torch.manual_seed(0))
    positions = torch.from_numpy(molecule.positions_nm) + 0.01 * noise
    found = target.force_field.energy_and_forces_kj_mol(positions)
    torch.testing.assert_close(found, expected.energy_and_forces_kj_mol(positions))
    torch.testing.assert_close(
        target.force_field.reduced_potential(positions), expected.reduced_potential(positions)
    )
    assert target.molecule == molecule
    assert gpu_inputs.FILE.stat().st_size < 500_000


def test_a_batch_that_does_not_fit_is_halved_and_other_errors_are_told() -> None:
    from gpu_timing import CPU, Bench, Case, Work

    def make(device, dtype, size, *, compiled=False):
        if size > 4:
            raise torch.OutOfMemoryError("too large")
        if compiled:
            raise RuntimeError("no compiler")
        return lambda: (torch.ones(size, device=device, dtype=dtype),)

    work = Work("ones", make, "ones", ("one",), flop=1.0)
    bench = Bench(CPU, 600.0, tiny=True)
    halved, told, skipped = bench.rows(work, [Case(16), Case(2, "compiled"), Case(2, "captured")])
    assert (halved["size"], halved["out_of_memory_at"]) == (4, [16, 8])
    assert halved["check"] == {"one": {"max": 0.0, "max_relative": 0.0}}
    assert "no compiler" in told["error"]
    assert "GPU" in skipped["skipped"]


def test_copies_from_the_host_and_products_are_counted() -> None:
    from gpu_timing import META, Counter

    with Counter() as counter:
        left = torch.ones(2, 3).to(META)
        left @ left.T
    assert (counter.flop, counter.host_copies) == (2 * 2 * 2 * 3, 1)


def test_lines_become_one_record_and_unknown_parts_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import gpu
    import record

    published = {}
    monkeypatch.setattr(
        record, "publish", lambda name, numbers, *_, **__: published.update(numbers)
    )
    lines = tmp_path / "lines.jsonl"
    for row in ({"machine": {"name": "H100"}, "tiny": False}, {"rate": 1.0}):
        gpu.tell({"part": "langevin", **row}, lines)
    gpu.collect(lines, write=False)
    assert published == {
        "measured_on": {"name": "H100"},
        "parts": {"langevin": [{"rate": 1.0}]},
    }
    with pytest.raises(ValueError, match="--parts"):
        gpu.chosen("langevin,nonsense")
