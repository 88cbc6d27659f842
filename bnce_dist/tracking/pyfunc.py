"""A generator as MLflow serves it: folders with a signature, refusals, and the server."""

import json
import os
import shutil
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import mlflow.pyfunc
import numpy as np
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.protos.databricks_pb2 import BAD_REQUEST
from mlflow.types import ColSpec, DataType, Schema, TensorSpec
from mlflow.types.schema import Array

from bnce_dist.core.allocator import keep_freed_memory
from bnce_dist.core.device import DEVICE_VARIABLE, device_from_name
from bnce_dist.core.errors import InputError
from bnce_dist.core.places import local_path
from bnce_dist.tracking.models import SCHEME, find_model
from bnce_dist.tracking.tracker import Positions

Task = Literal["reweight", "sample"]
Predict = Callable[..., dict[str, list[Any]]]

LOADER = "bnce_dist.serving"
"""The module that loads a folder; it travels with the model."""
SUFFIXES: dict[Task, str] = {"reweight": "", "sample": "-sampler"}
"""What the names of the registered models end with."""


REQUIREMENTS = (
    *("mlflow", "mdtraj", "networkx", "numpy", "openmm", "pandas", "psutil", "pydantic"),
    *("pymbar", "pyyaml", "scipy", "starlette", "torch", "tqdm", "uvicorn"),
)
"""What a served model needs besides the package that travels with it, pinned to what is here."""
_PACKAGE = Path(__file__).parents[1]
_NOT_SERVED = shutil.ignore_patterns("__pycache__", "*.pt", "references", "templates")


def _public_version(name: str) -> str:
    """Return an installed version as an index knows it, without a local part such as +cpu."""
    return version(name).partition("+")[0]


class RefusedRequest(MlflowException):
    """Status 400 with one line; MLflow by itself sends the whole request back.

    Args:
        error: What is wrong with the request.
    """

    def __init__(self, error: InputError) -> None:
        super().__init__(str(error), error_code=BAD_REQUEST)
        self._line = str(error)

    def serialize_as_json(self) -> str:
        """Return the body of the response."""
        return json.dumps({"error_code": self.error_code, "message": self._line})


def refusing(predict: Predict) -> Predict:
    """Make a model refuse what its user got wrong."""

    def wrapper(*args: Any, **kwargs: Any) -> dict[str, list[Any]]:
        try:
            return predict(*args, **kwargs)
        except InputError as error:
            raise RefusedRequest(error) from error

    return wrapper


def write_served_models(folder: Path, generator: Path, example_nm: Positions) -> dict[str, Path]:
    """Write a generator as two models: one reweights given positions, one samples.

    They load with ``mlflow.pyfunc.load_model``. This package travels in them: its name on a
    package index may be anybody's.

    Args:
        folder: Where they go, replacing what is there.
        generator: The generator's file.
        example_nm: Positions for the example of a request, ``(batch, atoms, 3)`` [nm].

    Returns: Suffix of the model's name to its folder.
    """
    import pandas as pd

    reweighted: list[ColSpec | TensorSpec] = [
        ColSpec(DataType.double, name)
        for name in ("log_density", "reduced_potential", "log_weight")
    ]
    positions = ColSpec(Array(Array(DataType.double)), "positions_nm")
    # The number of atoms stays open, so that our own line says which one is right.
    tensor = TensorSpec(np.dtype(np.float64), (-1, -1, 3))
    asked: list[ColSpec | TensorSpec] = [
        ColSpec(DataType.long, "num_samples"),
        ColSpec(DataType.long, "seed"),
        ColSpec(DataType.long, "num_levels", required=False),
    ]
    signatures: dict[Task, tuple[ModelSignature, Any]] = {
        "reweight": (ModelSignature(Schema([tensor]), Schema(reweighted)), example_nm),
        "sample": (
            ModelSignature(Schema(asked), Schema([positions, *reweighted])),
            pd.DataFrame({"num_samples": [2], "seed": [0]}),
        ),
    }
    shutil.rmtree(folder, ignore_errors=True)
    with TemporaryDirectory() as temporary:
        package = shutil.copytree(_PACKAGE, Path(temporary) / _PACKAGE.name, ignore=_NOT_SERVED)
        for task, (signature, example) in signatures.items():
            mlflow.pyfunc.save_model(
                folder / task,
                loader_module=LOADER,
                data_path=os.fspath(generator),
                code_paths=[os.fspath(package)],
                model_config={"task": task},
                signature=signature,
                input_example=example,
                pip_requirements=[f"{name}=={_public_version(name)}" for name in REQUIREMENTS],
            )
    return {SUFFIXES[task]: folder / task for task in signatures}


def serve(
    uri: str,
    *,
    host: str = "127.0.0.1",
    port: int = 5001,
    store: str | None = None,
    device: str = "cpu",
) -> None:
    """Serve a registered model until interrupted, by the protocol of ``mlflow models serve``.

    Args:
        uri: As for `models.find_model`, or a model's folder.
        host: Address to listen at.
        port: Port to listen at.
        store: As for `models.find_model`.
        device: Where it computes: ``cpu``, ``cuda`` or ``cuda:N``.

    Raises: InputError: no such model, or no such device.
    """
    import uvicorn

    from bnce_dist.tracking.server import application

    keep_freed_memory()
    device_from_name(device)
    # MLflow hands on to the loader of a model only what was saved with it.
    os.environ[DEVICE_VARIABLE] = device
    folder = None if uri.startswith(SCHEME) else local_path(uri)
    is_folder = folder is not None and folder.is_dir()
    source = str(folder) if is_folder else find_model(uri, store).source
    model = mlflow.pyfunc.load_model(source)
    uvicorn.run(application(model), host=host, port=port, log_level="warning")
