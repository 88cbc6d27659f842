"""The registry of models: who is registered, who is champion, and where the files are."""

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import mlflow.artifacts
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from bnce_dist.core.errors import InputError
from bnce_dist.tracking.mlflow_store import canonical, open_store, sqlite_path, unreachable
from bnce_dist.tracking.tracker import Quality

CHAMPION = "champion"
MODEL_FILE = "data/generator.pt"
SCHEME = "models:/"
DEFAULT_STORE = "sqlite:///runs/mlflow.db"


@dataclass(frozen=True)
class RegisteredModel:
    """One version of a model.

    Args:
        name: It is registered under.
        version: Counts from 1.
        aliases: That point to this version.
        quality: Of the run it is from.
        source: Address of its folder.
    """

    name: str
    version: int
    aliases: tuple[str, ...]
    quality: Quality
    source: str


def beats(challenger: Quality, champion: Quality) -> bool:
    """Return whether a model is closer to its reference and has more effective samples."""
    return (
        challenger.delta_f_error_kT < champion.delta_f_error_kT
        and challenger.ess_fraction > champion.ess_fraction
    )


def register(client: MlflowClient, name: str, run_id: str, folder: str, quality: Quality) -> None:
    """Register a folder of a run's artifacts, and make it champion if it deserves that.

    Repeating it changes nothing. The champion is reliable, and beats the one before.

    Args:
        client: The store.
        name: Of the model.
        run_id: MLflow's, of the run.
        folder: Of the model among the run's artifacts.
        quality: Of the run.
    """
    with suppress(MlflowException):  # It exists.
        client.create_registered_model(name)
    known = _versions(client, name)
    version = next((version for version in known if version.run_id == run_id), None)
    if version is None:
        source = f"{client.get_run(run_id).info.artifact_uri}/{folder}"
        version = client.create_model_version(name, source, run_id, tags=quality.to_tags())
    champion = client.get_registered_model(name).aliases.get(CHAMPION)
    best = next((model for model in known if str(model.version) == str(champion)), None)
    if quality.reliable and (best is None or beats(quality, Quality.from_tags(best.tags))):
        client.set_registered_model_alias(name, CHAMPION, version.version)


def predecessor(client: MlflowClient, name: str, run_id: str | None) -> Quality | None:
    """Return the quality of the last version before that of a run.

    Args:
        client: The store.
        name: Of the model.
        run_id: MLflow's, of the run, if it has one already.
    """
    known = {int(version.version): version for version in _versions(client, name)}
    own = [version for version, model in known.items() if model.run_id == run_id]
    before = [version for version in known if version < min(own, default=version + 1)]
    return Quality.from_tags(known[max(before)].tags) if before else None


def list_models(store: str | None = None) -> list[RegisteredModel]:
    """Return every version of every model, the last version of each name first.

    Args:
        store: Address of MLflow's store; by default ``MLFLOW_TRACKING_URI``, else
            ``runs/mlflow.db``.

    Raises: InputError: no store there, or one that does not answer.
    """
    client = _client(store)
    try:
        found = [
            _described(version, client.get_registered_model(version.name).aliases)
            for version in _versions(client)
        ]
    except (MlflowException, OSError) as error:
        raise unreachable(_store_address(store), error) from error
    return sorted(found, key=lambda model: (model.name, -model.version))


def find_model(uri: str, store: str | None = None) -> RegisteredModel:
    """Return the version of a model that an address names.

    Args:
        uri: ``models:/NAME@ALIAS``, ``models:/NAME/VERSION`` or ``models:/NAME/latest``.
        store: As for `list_models`.

    Raises: InputError: no such model, version or alias, or no store.
    """
    name, at, alias = uri.removeprefix(SCHEME).partition("@")
    version = ""
    if not at:
        name, _, version = name.partition("/")
    models = list_models(store)
    of_name = [model for model in models if model.name == name]
    if not uri.startswith(SCHEME) or not of_name:
        raise _unknown(uri, sorted({f"{SCHEME}{model.name}" for model in models}))
    for model in of_name:
        if alias in model.aliases or version in (str(model.version), "latest"):
            return model
    aliases = [f"@{alias}" for model in of_name for alias in model.aliases]
    versions = [f"/{model.version}" for model in of_name]
    raise _unknown(uri, [f"{SCHEME}{name}{end}" for end in (*aliases, "/latest", *versions)])


def fetch_model(uri: str, store: str | None = None) -> Path:
    """Return the generator's file of a registered model on this machine.

    Args:
        uri: As for `find_model`.
        store: As for `list_models`.

    Raises: InputError: no such model, or its files cannot be had.
    """
    source = find_model(uri, store).source
    try:
        found = mlflow.artifacts.download_artifacts(
            artifact_uri=f"{source}/{MODEL_FILE}", tracking_uri=_store_address(store)
        )
    except (MlflowException, OSError) as error:
        raise InputError(
            f"files of model {uri}",
            expected=f"{MODEL_FILE} at {source}",
            got=str(error)[:200],
            remedy="name the run's folder instead (--model runs/NAME), or another version",
        ) from error
    return Path(found)


def _versions(client: MlflowClient, name: str | None = None) -> list[ModelVersion]:
    """Return the registered versions that come from runs of this package."""
    found = client.search_model_versions(f"name='{name}'" if name else None)
    return [version for version in found if Quality.TAG in version.tags]


def _described(version: ModelVersion, aliases: Mapping[str, str]) -> RegisteredModel:
    pointing = sorted(
        alias for alias, target in aliases.items() if str(target) == str(version.version)
    )
    quality = Quality.from_tags(version.tags)
    return RegisteredModel(
        version.name, int(version.version), tuple(pointing), quality, str(version.source)
    )


def _store_address(store: str | None) -> str:
    return canonical(store or os.environ.get("MLFLOW_TRACKING_URI", "").strip() or DEFAULT_STORE)


def _client(store: str | None) -> MlflowClient:
    address = _store_address(store)
    path = sqlite_path(address)
    # MLflow would make an empty database there.
    if path is not None and not path.exists():
        raise InputError(
            f"model registry {address}",
            expected="the store of a finished run",
            got="no file",
            remedy="name another store, or train a model first",
        )
    return open_store(address)


def _unknown(uri: str, known: list[str]) -> InputError:
    return InputError(
        f"model {uri}",
        expected=f"one of {', '.join(known)}" if known else "a registered model",
        got="none of that name",
        remedy="choose one of those" if known else "train a model first",
    )
