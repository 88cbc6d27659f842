"""The files of ``cluster/``, as far as they can be checked without a cluster."""

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from ray._private.runtime_env.packaging import create_package
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "cluster"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PINNED = dict(re.findall(r"^([\w-]+)==(.+)$", (ROOT / "constraints.txt").read_text(), re.M))
RAY_UP = ["aws", "on_premise"]
SHELLCHECK = Path(sys.executable).with_name("shellcheck")
SCRIPTS = ["cluster/slurm.sh", "mlflow/serve.sh"]


def load(path: str) -> dict[str, Any]:
    return yaml.safe_load((FOLDER / path).read_text())


def text_files() -> list[Path]:
    return sorted(path for path in FOLDER.rglob("*") if path.is_file())


@pytest.mark.parametrize("name", RAY_UP)
def test_ray_up_accepts_the_configuration(name: str) -> None:
    config = load(f"{name}.yaml")
    validate_config(prepare_config(config))
    with pytest.raises(jsonschema.ValidationError, match="head_node_typ"):
        validate_config(prepare_config(config) | {"head_node_typ": "head"})


def test_aws_has_an_idle_head_and_two_kinds_of_workers() -> None:
    config = prepare_config(load("aws.yaml"))
    types = config["available_node_types"]
    assert types["head"]["resources"]["CPU"] == 0
    assert {name for name, node in types.items() if node["max_workers"]} == {"cpu", "gpu"}
    # Ray would add commands that install another Ray into the image.
    assert config["setup_commands"] == []


def test_on_premise_machines_all_join() -> None:
    config = load("on_premise.yaml")
    assert config["max_workers"] == len(config["provider"]["worker_ips"])


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_pass_the_shell_and_its_linter(script: str) -> None:
    subprocess.run(["bash", "-n", script], cwd=ROOT, check=True)
    linted = subprocess.run(
        [SHELLCHECK, script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert linted.returncode == 0, linted.stdout


def test_the_slurm_job_is_told_before_its_time_is_up_and_has_its_nodes_to_itself() -> None:
    options = dict(
        re.findall(r"^#SBATCH --([\w-]+)=?(.*)$", (FOLDER / "slurm.sh").read_text(), re.M)
    )
    assert options["signal"] == "B:TERM@120"
    assert options["ntasks-per-node"] == "1"
    assert "exclusive" in options


def test_a_node_of_the_slurm_job_gets_the_cores_that_ray_is_told_of() -> None:
    text = (FOLDER / "slurm.sh").read_text()
    assert '--num-cpus="$SLURM_CPUS_PER_TASK"' in text
    # Since Slurm 22.05 srun does not take over what sbatch was asked for.
    assert re.search(r'^srun --cpus-per-task="\$SLURM_CPUS_PER_TASK" ', text, re.M)


@pytest.mark.parametrize("path", ["slurm.sh", "on_premise.yaml"])
def test_ranks_talk_over_the_interface_between_the_nodes(path: str) -> None:
    text = (FOLDER / path).read_text()
    starts = len(re.findall(r"ray start", text)) if path == "on_premise.yaml" else 1
    for library in ("GLOO", "NCCL"):
        assert len(re.findall(rf"{library}_SOCKET_IFNAME=", text)) == starts


def test_every_launcher_asks_for_the_token() -> None:
    assert "--env=RAY_AUTH_MODE=token" in load("aws.yaml")["docker"]["run_options"]
    on_premise = load("on_premise.yaml")
    for command in on_premise["head_start_ray_commands"] + on_premise["worker_start_ray_commands"]:
        assert "ray start" not in command or "RAY_AUTH_MODE=token" in command
    assert "\nexport RAY_AUTH_MODE=token\n" in (FOLDER / "slurm.sh").read_text()
    assert load("kuberay/raycluster.yaml")["spec"]["authOptions"] == {"mode": "token"}
    assert load("kuberay/rayjob.yaml")["spec"]["rayClusterSpec"]["authOptions"] == {"mode": "token"}
    assert re.search(r"^ENV (.|\n)*RAY_AUTH_MODE=token$", (FOLDER / "Dockerfile").read_text(), re.M)


@pytest.mark.parametrize("path", text_files(), ids=lambda p: p.name)
def test_no_file_holds_or_shows_a_token(path: Path) -> None:
    text = path.read_text()
    assert not re.search(r"[0-9a-f]{32}", text)
    for value in re.findall(r"RAY_AUTH_TOKEN=(\S+)", text):
        assert value.startswith("$(")
    assert "set -x" not in text
    for line in text.splitlines():
        # `ray get-auth-token` prints what it makes.
        assert "--generate" not in line or "> /dev/null" in line


@pytest.mark.parametrize("name", RAY_UP)
def test_ray_up_brings_the_token_as_a_file(name: str) -> None:
    assert load(f"{name}.yaml")["file_mounts"] == {"~/.ray/auth_token": "~/.ray/auth_token"}


def test_the_image_installs_what_make_setup_installs() -> None:
    dockerfile = (FOLDER / "Dockerfile").read_text()
    python = PROJECT["tool"]["mypy"]["python_version"]
    assert re.findall(r"^FROM (.+)$", dockerfile, re.M) == [f"python:{python}-slim"]
    assert "make setup setup-deepspeed TORCH=$TORCH VENV=/opt/venv" in dockerfile
    assert "pip install" not in dockerfile
    copied = re.findall(r"^COPY --chown=ray (.+) \S+$", dockerfile, re.M)
    sources = {source for line in copied for source in line.split()}
    assert {"Makefile", "pyproject.toml", "constraints.txt", "bnce_dist", "jobs"} <= sources
    assert all((ROOT / source).exists() for source in sources)
    ignore = (FOLDER / "Dockerfile.dockerignore").read_text()
    assert set(re.findall(r"^!(.+)$", ignore, re.M)) == sources


def test_versions_in_manifests_are_those_of_the_package() -> None:
    assert load("kuberay/raycluster.yaml")["spec"]["rayVersion"] == PINNED["ray"]
    tag = PROJECT["project"]["version"]
    for path in text_files():
        for found in re.findall(r"REGISTRY/bnce_dist:(\S+)", path.read_text()):
            assert found == tag, path


def test_a_job_uploads_the_code_and_nothing_else(tmp_path: Path) -> None:
    runtime_env = load("runtime_env.yaml")
    assert runtime_env["working_dir"] == "."
    wanted = {"bnce_dist/core/ode.py", "jobs/train.py", "jobs/configs/smoke.yaml"}
    heavy = {"runs/adp/samples.npz", "data/z.npy", ".venv/lib/torch.so", ".git/pack", "mlruns/x"}
    for name in wanted | heavy | {"tests/test_x.py"}:
        path = tmp_path / "checkout" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("content")
    package = tmp_path / "package.zip"
    create_package(
        str(tmp_path / "checkout"),
        package,
        include_gitignore=True,
        excludes=runtime_env["excludes"],
    )
    files = {name for name in zipfile.ZipFile(package).namelist() if not name.endswith("/")}
    assert files == wanted
