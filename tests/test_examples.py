"""Examples in docstrings do what they show."""

import doctest
import importlib

import pytest

SHOWN = {
    "bnce_dist.chem.geometry": {"bend", "dihedral"},
    "bnce_dist.chem.molecule": {"Molecule.from_sequence"},
    "bnce_dist.config.load": {"with_values"},
    "bnce_dist.core.divergence": {"sample_with_log_density"},
    "bnce_dist.core.errors": {"InputError"},
    "bnce_dist.core.free_energy": {"delta_f"},
    "bnce_dist.core.interpolant": {"interpolant_from_name", "velocity_from_score"},
    "bnce_dist.core.metrics": {
        *("kl_divergence_on_grid", "wasserstein_2", "torus_wasserstein_2"),
        "free_energy_profile",
    },
    "bnce_dist.core.objectives": {"FlowMatching", "EnergyMatching"},
    "bnce_dist.core.ode": {"midpoint"},
    "bnce_dist.core.path": {"wrap_angle", "ProductPath"},
    "bnce_dist.core.random": {"generator"},
    "bnce_dist.core.weights": {"log_weights", "Weights"},
}
"""What people meet first, by its module."""


@pytest.mark.parametrize("name", SHOWN)
def test_examples_show_what_happens(name: str) -> None:
    module = importlib.import_module(name)
    found = doctest.DocTestFinder(exclude_empty=True).find(module)
    examples = {test.name.removeprefix(f"{name}."): test for test in found if test.examples}
    assert set(examples) == SHOWN[name]
    runner = doctest.DocTestRunner(verbose=False)
    printed: list[str] = []
    for test in examples.values():
        runner.run(test, out=printed.append)
    assert runner.summarize(verbose=False).failed == 0, "".join(printed)
