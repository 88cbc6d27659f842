"""The Kubernetes manifests against the fields that we set: a mistyped one fails."""

import copy
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

FOLDER = Path(__file__).parents[2] / "cluster" / "kuberay"

Schema = dict[str, Any]


def fields(required: Schema, optional: Schema | None = None) -> Schema:
    """An object with these fields and no others."""
    return {
        "type": "object",
        "properties": required | (optional or {}),
        "required": list(required),
        "additionalProperties": False,
    }


def list_of(item: Schema) -> Schema:
    return {"type": "array", "items": item, "minItems": 1}


TEXT: Schema = {"type": "string"}
COUNT: Schema = {"type": "integer", "minimum": 0}
NAMED = fields({"name": TEXT})
QUANTITIES = fields(
    {"cpu": TEXT, "memory": {"type": "string", "pattern": r"^\d+Gi$"}}, {"nvidia.com/gpu": TEXT}
)
CONTAINER = fields(
    {
        "name": TEXT,
        "image": TEXT,
        "resources": fields({"requests": QUANTITIES, "limits": QUANTITIES}),
        "volumeMounts": list_of(fields({"name": TEXT, "mountPath": TEXT})),
    },
    {"ports": list_of(fields({"name": TEXT, "containerPort": COUNT}))},
)
POD = fields(
    {
        "spec": fields(
            {
                "securityContext": fields({"fsGroup": COUNT}),
                "containers": list_of(CONTAINER),
                "volumes": list_of(
                    fields({"name": TEXT, "persistentVolumeClaim": fields({"claimName": TEXT})})
                ),
            },
            {"tolerations": list_of(fields({"key": TEXT, "operator": TEXT, "effect": TEXT}))},
        )
    }
)
# Ray's own options: all of them are strings.
START_PARAMS: Schema = {"type": "object", "additionalProperties": TEXT}
GROUP = fields(
    {
        "groupName": TEXT,
        "replicas": COUNT,
        "minReplicas": COUNT,
        "maxReplicas": COUNT,
        "rayStartParams": START_PARAMS,
        "template": POD,
    }
)
CLUSTER_SPEC = fields(
    {
        "rayVersion": TEXT,
        "authOptions": fields({"mode": {"enum": ["token"]}}),
        "enableInTreeAutoscaling": {"type": "boolean"},
        "autoscalerOptions": fields({"version": {"enum": ["v2"]}, "idleTimeoutSeconds": COUNT}),
        "headGroupSpec": fields({"rayStartParams": START_PARAMS, "template": POD}),
        "workerGroupSpecs": list_of(GROUP),
    }
)
JOB_SPEC = fields(
    {
        "entrypoint": TEXT,
        "shutdownAfterJobFinishes": {"type": "boolean"},
        "ttlSecondsAfterFinished": COUNT,
        "backoffLimit": COUNT,
        "rayClusterSpec": CLUSTER_SPEC,
    }
)
CLAIM_SPEC = fields(
    {
        "accessModes": list_of({"enum": ["ReadWriteMany"]}),
        "storageClassName": TEXT,
        "resources": fields({"requests": fields({"storage": TEXT})}),
    }
)


def manifest(version: str, kind: str, spec: Schema) -> Schema:
    return fields(
        {
            "apiVersion": {"const": version},
            "kind": {"const": kind},
            "metadata": NAMED,
            "spec": spec,
        }
    )


SCHEMAS = {
    "raycluster": manifest("ray.io/v1", "RayCluster", CLUSTER_SPEC),
    "rayjob": manifest("ray.io/v1", "RayJob", JOB_SPEC),
    "storage": manifest("v1", "PersistentVolumeClaim", CLAIM_SPEC),
}


def load(name: str) -> dict[str, Any]:
    return yaml.safe_load((FOLDER / f"{name}.yaml").read_text())


@pytest.mark.parametrize("name", SCHEMAS)
def test_manifests_set_known_fields_only(name: str) -> None:
    jsonschema.validate(load(name), SCHEMAS[name])


def test_a_mistyped_field_fails() -> None:
    cluster = load("raycluster")
    cluster["spec"]["workerGroupSpecs"][0]["maxReplica"] = 3
    with pytest.raises(jsonschema.ValidationError, match="maxReplica"):
        jsonschema.validate(cluster, SCHEMAS["raycluster"])


def test_the_job_runs_on_the_same_cluster() -> None:
    assert load("rayjob")["spec"]["rayClusterSpec"] == load("raycluster")["spec"]


def test_both_kinds_of_workers_scale_and_every_pod_sees_the_shared_folder() -> None:
    spec = load("raycluster")["spec"]
    groups = {group["groupName"]: group for group in spec["workerGroupSpecs"]}
    assert set(groups) == {"cpu", "gpu"}
    assert spec["enableInTreeAutoscaling"]
    assert all(group["minReplicas"] < group["maxReplicas"] for group in groups.values())
    for name, group in groups.items():
        pod = group["template"]["spec"]
        has_gpu = "nvidia.com/gpu" in pod["containers"][0]["resources"]["limits"]
        assert has_gpu == ("tolerations" in pod) == (name == "gpu")
    claim = load("storage")["metadata"]["name"]
    for group in (spec["headGroupSpec"], *groups.values()):
        pod = group["template"]["spec"]
        assert [v["persistentVolumeClaim"]["claimName"] for v in pod["volumes"]] == [claim]
        mounts = {
            mount["name"]: mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]
        }
        assert mounts == {pod["volumes"][0]["name"]: "/shared"}


def test_requests_equal_limits() -> None:
    # Ray sizes a node by its limits; a pod that gets less is killed for memory.
    spec = copy.deepcopy(load("raycluster")["spec"])
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        resources = group["template"]["spec"]["containers"][0]["resources"]
        assert resources["requests"] == resources["limits"]
