"""The registry of models: who is champion, what came before, what an address means."""

import shutil
from pathlib import Path

import pytest

pytest.importorskip("mlflow.tracking")
from mlflow.tracking import MlflowClient

from bnce_dist.core.errors import InputError
from bnce_dist.tracking.mlflow_tracker import MlflowTracker, flush, local_store
from bnce_dist.tracking.models import (
    MODEL_FILE,
    beats,
    fetch_model,
    find_model,
    list_models,
    predecessor,
    register,
)
from bnce_dist.tracking.moved_store import follow_moved_store
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


def test_models_follow_a_moved_folder(
    store: str, client: MlflowClient, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """After ``mv runs runs2``, also for MLflow itself, and runs that come later."""
    runs = tmp_path / "runs"
    source = run_with_a_model(runs)
    moved = runs.rename(tmp_path / "runs 2")
    moved_store = f"sqlite:///{moved}/mlflow.db"
    assert fetch_model(f"models:/{NAME}/1", moved_store).read_text() == "the model"
    assert "the store moved" in caplog.text
    version = MlflowClient(moved_store).get_model_version(NAME, "1")
    assert version.source != source
    assert version.source.startswith((moved / "mlflow_artifacts").as_uri())
    caplog.clear()
    find_model(f"models:/{NAME}/1", moved_store)
    assert "moved" not in caplog.text

    later = MlflowTracker(moved / "two")
    later.start_run("two", {})
    (moved / "two" / "a.txt").write_text("a")
    later.log_artifact(moved / "two" / "a.txt")
    later.finish()
    assert list((moved / "mlflow_artifacts").rglob("a.txt"))
    flush(moved / "one")
    assert not runs.exists(), "nothing may be written where the folder was"


def test_a_moved_store_finds_its_files_where_new_runs_have_begun_in_the_old_place(
    store: str, client: MlflowClient, tmp_path: Path
) -> None:
    """After ``mv runs old`` the next command makes ``runs`` again, with a store of its own."""
    runs = tmp_path / "runs"
    run_with_a_model(runs)
    moved = runs.rename(tmp_path / "old")
    others = runs / "mlflow_artifacts" / "1" / "2" / "artifacts" / "a.txt"
    others.parent.mkdir(parents=True)
    others.write_text("of another store")
    moved_store = f"sqlite:///{moved}/mlflow.db"
    assert fetch_model(f"models:/{NAME}/1", moved_store).read_text() == "the model"


def test_files_on_a_disk_that_is_away_are_found_again_when_it_is_back(
    store: str, client: MlflowClient, tmp_path: Path
) -> None:
    """Of runs that wrote to another disk than the store's, but into its table."""
    runs = tmp_path / "runs"
    run_with_a_model(runs)
    database = tmp_path / "shared" / "mlflow.db"
    (database.parent / "mlflow_artifacts").mkdir(parents=True)
    shutil.copy(runs / "mlflow.db", database)
    away = runs.rename(tmp_path / "away")
    follow_moved_store(database)
    away.rename(runs)
    assert fetch_model(f"models:/{NAME}/1", f"sqlite:///{database}").read_text() == "the model"


def run_with_a_model(runs: Path) -> str:
    """Record a run that registers a model, and return the address of the model's folder."""
    tracker = MlflowTracker(runs / "one")
    tracker.start_run("one", {})
    tracker.finish()
    return register_a_file(local_store(runs / "one"), runs)


def register_a_file(store: str, runs: Path) -> str:
    """Register a model of the only run of a store and return the address of its folder."""
    client = MlflowClient(store)
    (experiment,) = client.search_experiments(filter_string="name = 'bnce_dist'")
    (run,) = client.search_runs([experiment.experiment_id])
    file = runs / MODEL_FILE
    file.parent.mkdir(parents=True)
    file.write_text("the model")
    client.log_artifacts(run.info.run_id, str(file.parent), f"models/{NAME}/data")
    register(client, NAME, run.info.run_id, f"models/{NAME}", quality("one", 0.1, 0.1))
    return str(client.get_model_version(NAME, "1").source)


def test_a_copied_store_whose_files_are_still_there_is_left_alone(
    store: str, client: MlflowClient, tmp_path: Path
) -> None:
    folder = Path(store.removeprefix("sqlite:///")).parent
    shutil.copytree(folder, tmp_path / "copy")
    (tmp_path / "copy" / "mlflow_artifacts").mkdir()
    before = (tmp_path / "copy" / "mlflow.db").read_bytes()
    follow_moved_store(tmp_path / "copy" / "mlflow.db")
    assert (tmp_path / "copy" / "mlflow.db").read_bytes() == before
