"""The registry of models: who is champion, what came before, what an address means."""

from pathlib import Path

import pytest

pytest.importorskip("mlflow.tracking")
from mlflow.tracking import MlflowClient

from bnce_dist.core.errors import InputError
from bnce_dist.tracking.models import (
    MODEL_FILE,
    beats,
    fetch_model,
    find_model,
    list_models,
    predecessor,
    register,
)
from bnce_dist.tracking.tracker import Quality

NAME = "ace-ala-nme"


def quality(run: str, error: float, ess: float, *, reliable: bool = True) -> Quality:
    return Quality(run, error, ess, reliable)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('registry')}/mlflow.db"


@pytest.fixture(scope="module")
def client(store: str) -> MlflowClient:
    """A store with five models of one molecule, registered one after the other."""
    client = MlflowClient(store)
    artifacts = Path(store.removeprefix("sqlite:///")).parent / "artifacts"
    experiment = client.create_experiment("test", artifact_location=artifacts.as_uri())
    for candidate in (
        quality("unreliable", 0.01, 0.9, reliable=False),
        quality("first", 0.08, 0.30),
        quality("more accurate, fewer effective", 0.02, 0.25),
        quality("better", 0.05, 0.40),
        quality("worse", 0.20, 0.10),
    ):
        run = client.create_run(experiment).info.run_id
        model = artifacts / run / "artifacts" / "models" / NAME / MODEL_FILE
        model.parent.mkdir(parents=True)
        model.write_text(candidate.run)
        for _ in range(2):  # What is sent twice is registered once.
            register(client, NAME, run, f"models/{NAME}", candidate)
    return client


def test_a_challenger_must_be_better_in_both() -> None:
    champion = quality("champion", 0.05, 0.4)
    assert beats(quality("both", 0.04, 0.41), champion)
    assert not beats(quality("error", 0.04, 0.4), champion)
    assert not beats(quality("ess", 0.05, 0.41), champion)


def test_the_champion_is_reliable_and_beat_the_one_before(client: MlflowClient, store: str) -> None:
    models = list_models(store)
    assert [(model.version, model.quality.run) for model in models] == [
        (5, "worse"),
        (4, "better"),
        (3, "more accurate, fewer effective"),
        (2, "first"),
        (1, "unreliable"),
    ]
    assert [model.version for model in models if model.aliases] == [4]
    assert models[1].aliases == ("champion",)


def test_addresses_lead_to_files(client: MlflowClient, store: str) -> None:
    for end, run in (("@champion", "better"), ("/latest", "worse"), ("/2", "first")):
        assert find_model(f"models:/{NAME}{end}", store).quality.run == run
        assert fetch_model(f"models:/{NAME}{end}", store).read_text() == run


@pytest.mark.parametrize(
    ("uri", "known"),
    [
        (f"models:/{NAME}@best", f"models:/{NAME}@champion"),
        (f"models:/{NAME}/9", f"models:/{NAME}/latest"),
        (f"models:/{NAME}", f"models:/{NAME}@champion"),
        ("models:/ala@champion", f"models:/{NAME}"),
        (NAME, f"models:/{NAME}"),
    ],
)
def test_an_unknown_address_is_one_line_with_those_that_exist(
    client: MlflowClient, store: str, uri: str, known: str
) -> None:
    with pytest.raises(InputError) as refused:
        find_model(uri, store)
    assert f"model {uri}: expected one of" in str(refused.value)
    assert known in str(refused.value)


def test_a_store_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no file"):
        list_models(f"sqlite:///{tmp_path}/mlflow.db")
    assert not (tmp_path / "mlflow.db").exists()


def test_the_predecessor_is_the_version_before(client: MlflowClient) -> None:
    runs = {model.quality.run: model for model in list_models(client.tracking_uri)}
    run_id = client.get_model_version(NAME, str(runs["better"].version)).run_id
    before = predecessor(client, NAME, run_id)
    assert before is not None
    assert before.run == "more accurate, fewer effective"
    newest = predecessor(client, NAME, None)
    assert newest is not None
    assert newest.run == "worse"
    assert predecessor(client, "unknown", None) is None
