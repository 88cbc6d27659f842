"""Imports point down, heavy libraries stay in their layer, and importing the package is cheap."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "bnce_dist"

MAY_IMPORT = {
    "core": set(),
    "nn": {"core"},
    "data": {"core"},
    "training": {"core", "nn", "data"},
    "chem": {"core", "data"},
    "tracking": {"core", "data"},
    "report": {"core", "chem", "data"},
    "pipeline": {"core", "nn", "data", "training", "chem", "tracking"},
    "distributed": {"core", "nn", "data", "training", "chem", "pipeline"},
    "cli": {
        "core",
        "nn",
        "data",
        "training",
        "chem",
        "tracking",
        "report",
        "pipeline",
        "distributed",
    }
    | {"launch"},
}
OWNERS = {
    "openmm": {"chem"},
    "mdtraj": {"chem"},
    "pymbar": {"chem"},
    "ray": {"distributed"},
    "deepspeed": {"distributed"},
    "optuna": {"distributed"},
    "mlflow": {"tracking"},
    "matplotlib": {"report"},
    "jinja2": {"report"},
    "pydantic": {"pipeline"},
    "yaml": {"pipeline"},
    "typer": {"cli"},
}
BARE = {"torch", "numpy", "scipy", "torchdiffeq", "torch_cluster"}
"""What core and nn may use besides the standard library: they run on a bare torch machine, and
without torch_cluster, which one function imports where it is installed."""


def imported_modules(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def layered_files() -> list[Path]:
    return sorted(path for layer in MAY_IMPORT for path in (PACKAGE / layer).rglob("*.py"))


def test_every_folder_is_a_known_layer() -> None:
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert folders == set(MAY_IMPORT)


def test_the_order_of_layers_has_no_cycle() -> None:
    placed: set[str] = {"launch"}
    while ready := {layer for layer, below in MAY_IMPORT.items() if below <= placed} - placed:
        placed |= ready
    assert placed == set(MAY_IMPORT) | {"launch"}


@pytest.mark.parametrize("path", layered_files(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    layer = path.relative_to(PACKAGE).parts[0]
    for module in imported_modules(path):
        top, _, rest = module.partition(".")
        if top == "bnce_dist":
            target = rest.partition(".")[0]
            assert target in MAY_IMPORT[layer] | {layer, "__version__"}, f"{layer} -> {module}"
        else:
            assert layer in OWNERS.get(top, {layer}), f"{top} is not for {layer}"


@pytest.mark.parametrize("layer", ["core", "nn"])
def test_core_and_nn_need_only_torch(layer: str) -> None:
    for path in (PACKAGE / layer).rglob("*.py"):
        tops = {module.partition(".")[0] for module in imported_modules(path)}
        assert tops <= BARE | {"bnce_dist"} | sys.stdlib_module_names, path


def test_pipeline_knows_only_the_tracker_protocol() -> None:
    for path in (PACKAGE / "pipeline").rglob("*.py"):
        for module in imported_modules(path):
            if module.startswith("bnce_dist.tracking"):
                assert module.startswith("bnce_dist.tracking.tracker."), f"{path}: {module}"


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import sys, bnce_dist; print(*sorted({m.partition('.')[0] for m in sys.modules}))"
    modules = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout.split()
    assert not set(modules) & {"ray", "openmm", "mlflow", "deepspeed", "matplotlib", "mdtraj"}


def test_the_top_level_folder_mlflow_shadows_nothing() -> None:
    # A .py file there would hide the installed package of the same name.
    assert list((ROOT / "mlflow").rglob("*.py")) == []
