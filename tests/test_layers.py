"""Imports point down, heavy libraries stay in their layer, and importing the package is cheap."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "bnce_dist"

MAY_IMPORT = {
    "core": set(),
    "data": {"core"},
    "config": {"core"},
    "nn": {"core"},
    "training": {"core", "data", "config"},
    "chem": {"core", "data", "config"},
    "tracking": {"core", "data"},
    "generator": {"core", "data", "config", "nn", "training", "chem"},
    "report": {"core", "data", "chem"},
    "pipeline": {"core", "data", "config", "nn", "training", "chem", "tracking", "generator"},
    "runs": {
        *("core", "data", "config", "nn", "training", "chem"),
        *("tracking", "generator", "report", "pipeline"),
    },
    "distributed": {
        *("core", "data", "config", "training", "tracking"),
        *("generator", "pipeline", "runs"),
    },
    "api": {"core", "config", "data", "chem", "generator", "pipeline", "runs", "distributed"},
    "serving": {"core", "tracking", "generator"},
    "cli": {
        *("core", "data", "config", "training", "chem", "tracking"),
        *("generator", "pipeline", "runs", "distributed"),
    },
    "__main__": {"cli"},
    # Imported on first use of the names they lend the package.
    "__init__": {"chem", "generator", "api"},
}
"""The rooms, folders and single files alike, and what each imports; nothing imports upwards."""
OWNERS = {
    "openmm": {"chem"},
    "mdtraj": {"chem"},
    "networkx": {"chem"},
    "pymbar": {"chem"},
    "ray": {"distributed"},
    "deepspeed": {"distributed"},
    "optuna": {"distributed"},
    "mlflow": {"tracking"},
    "matplotlib": {"report"},
    "jinja2": {"report"},
    "psutil": {"pipeline"},
    "pydantic": {"config", "training", "chem", "generator", "pipeline", "runs"},
    "yaml": {"config"},
    "typer": {"cli"},
}
BARE = {"torch", "numpy", "scipy", "torch_cluster"}
"""What core and nn may use besides the standard library: they run on a bare torch machine, and
without torch_cluster, which one function imports where it is installed."""


def imported_modules(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


FILES = sorted(PACKAGE.rglob("*.py"))


def imported_rooms(path: Path) -> set[str]:
    names = (module.split(".") for module in imported_modules(path))
    return {parts[1] for parts in names if parts[0] == "bnce_dist"} - {room(path), "__version__"}


def test_every_folder_and_file_is_a_known_room() -> None:
    assert {room(path) for path in FILES} == set(MAY_IMPORT)


def test_the_order_of_rooms_has_no_cycle() -> None:
    placed: set[str] = set()
    while ready := {name for name, below in MAY_IMPORT.items() if below <= placed} - placed:
        placed |= ready
    assert placed == set(MAY_IMPORT)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    assert imported_rooms(path) <= MAY_IMPORT[room(path)]
    for module in imported_modules(path):
        top = module.partition(".")[0]
        assert room(path) in OWNERS.get(top, {room(path)}), f"{top} is not for {room(path)}"


def test_no_permission_is_unused() -> None:
    used: dict[str, set[str]] = {name: set() for name in MAY_IMPORT}
    owners: dict[str, set[str]] = {name: set() for name in OWNERS}
    for path in FILES:
        used[room(path)] |= imported_rooms(path)
        for module in imported_modules(path):
            if (top := module.partition(".")[0]) in owners:
                owners[top].add(room(path))
    lazily = re.findall(r'"bnce_dist\.(\w+)', (PACKAGE / "__init__.py").read_text())
    used["__init__"] |= set(lazily)
    assert {name: MAY_IMPORT[name] - used[name] for name in used} == {name: set() for name in used}
    assert owners == OWNERS


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


@pytest.mark.parametrize(
    ("modules", "left_out"),
    [
        ("bnce_dist", {"ray", "openmm", "mlflow", "deepspeed", "matplotlib", "mdtraj"}),
        # Every process of a pool and of a job imports the first, and most of a cluster's time goes
        # into the start of processes.
        ("bnce_dist.distributed.executor, bnce_dist.distributed.relay", {"torch", "pandas"}),
    ],
)
def test_importing_imports_nothing_heavy(modules: str, left_out: set[str]) -> None:
    code = f"import sys, {modules}; print(*{{m.partition('.')[0] for m in sys.modules}})"
    imported = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout.split()
    assert not set(imported) & left_out


def test_the_top_level_folder_mlflow_shadows_nothing() -> None:
    # A .py file there would hide the installed package of the same name.
    assert list((ROOT / "mlflow").rglob("*.py")) == []
