"""The tutorial runs as it stands."""

import ast
import json
import shutil
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_the_tutorial_runs_from_a_sequence_to_a_free_energy(
    finished_run: Path, tmp_path: Path
) -> None:
    """The finished run of the same settings stands for the work, which is not repeated."""
    (tmp_path / "jobs").symlink_to(ROOT / "jobs")
    shutil.copytree(finished_run, tmp_path / "runs" / "tutorial")
    notebook = nbformat.read(ROOT / "docs" / "tutorial.ipynb", as_version=4)
    nbclient.NotebookClient(
        notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}
    ).execute()

    results = [
        output["data"]["text/plain"]
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if output.output_type == "execute_result"
    ]
    num_atoms, reference, (ess_fraction, _), mean_cosine = map(ast.literal_eval, results[:4])
    metrics = json.loads((finished_run / "metrics.json").read_text())
    names = ("delta_f_reference_run_kT", "delta_f_reference_run_stderr_kT")
    assert num_atoms == 22
    assert reference == tuple(metrics[name] for name in names)
    assert 0 < ess_fraction <= 1
    assert -1 < mean_cosine < 1
    assert (tmp_path / "samples.npz").exists()
