import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from bnce_dist.tracking.mlflow_tracker import local_store

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "mlflow"


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return yaml.safe_load((FOLDER / "compose.yaml").read_text())


def test_the_folder_does_not_hide_the_package() -> None:
    assert list(FOLDER.rglob("*.py")) == []
    script = "from importlib.util import find_spec; print(find_spec('mlflow').origin)"
    for folder in (ROOT, FOLDER):
        found = subprocess.run(
            [sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, check=True
        )
        origin = Path(found.stdout.strip())
        assert origin.is_file()
        assert not origin.is_relative_to(FOLDER)


def test_compose_keeps_data_on_volumes_and_the_port_on_this_machine(
    compose: dict[str, Any],
) -> None:
    services = compose["services"]
    assert set(services) == {"database", "server"}
    mounted = {mount.split(":")[0] for service in services.values() for mount in service["volumes"]}
    assert mounted == set(compose["volumes"])
    assert [port.split(":")[0] for port in services["server"]["ports"]] == ["127.0.0.1"]
    assert "ports" not in services["database"]
    assert services["server"]["depends_on"]["database"]["condition"] == "service_healthy"


def test_compose_takes_passwords_from_the_environment_only(compose: dict[str, Any]) -> None:
    database = compose["services"]["database"]["environment"]
    server = compose["services"]["server"]["environment"]
    # ":?" stops compose with a message where the variable is not set.
    assert database["POSTGRES_PASSWORD"].startswith("${MLFLOW_DB_PASSWORD:?")
    assert "://mlflow:${MLFLOW_DB_PASSWORD}@database/" in server["MLFLOW_BACKEND_STORE_URI"]
    assert "PASSWORD" not in " ".join(compose["services"]["server"]["command"])


def test_the_server_is_the_version_the_tests_ran_with(compose: dict[str, Any]) -> None:
    pinned = re.findall(r"mlflow==([\d.]+)", (ROOT / "constraints.txt").read_text())
    dockerfile = compose["services"]["server"]["build"]["dockerfile_inline"]
    assert re.findall(r"mlflow==([\d.]+)", dockerfile) == pinned


def test_the_project_runs_an_entry_point_that_exists() -> None:
    from mlflow.projects._project_spec import load_project

    entry = load_project(str(FOLDER)).get_entry_point("train")
    command = entry.compute_command({"name": "a b", "seed": "3"}, storage_dir=None)
    assert command == "cd .. && python jobs/train.py --name 'a b' --output runs seed=3"
    assert (ROOT / "jobs" / "train.py").exists()


def test_the_serve_script_serves_the_store_that_runs_write_to() -> None:
    subprocess.run(["bash", "-n", str(FOLDER / "serve.sh")], check=True)
    script = (FOLDER / "serve.sh").read_text()
    # Both take the store from the output folder, the parent of a run's.
    assert local_store(Path("/OUT/adp")) == "sqlite:////OUT/mlflow.db"
    assert '"sqlite:///$output/mlflow.db"' in script
    assert '"$output/mlflow_artifacts"' in script
