from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from bnce_dist.config.load import dotted_values, load_config, to_yaml
from bnce_dist.config.section import Section
from bnce_dist.core.errors import InputError
from bnce_dist.generator.architectures import EnergyConfig
from bnce_dist.pipeline.config import Config
from bnce_dist.runs.planar.config import PlanarConfig
from bnce_dist.runs.sweep.config import SweepConfig

CONFIGS = sorted((Path(__file__).parents[2] / "jobs" / "configs").glob("*.yaml"))


def sections(section: type[Section]) -> Iterator[type[Section]]:
    yield section
    for field in section.model_fields.values():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from sections(field.annotation)


@pytest.mark.parametrize("root", [Config, PlanarConfig])
def test_every_setting_is_described(root: type[Section]) -> None:
    for section in sections(root):
        assert section.__doc__
        for name, field in section.model_fields.items():
            is_section = isinstance(field.annotation, type) and issubclass(
                field.annotation, Section
            )
            assert is_section or field.description, f"{section.__name__}.{name}"


def test_settings_with_a_dimension_name_their_unit() -> None:
    units = {"_ps": "[ps]", "_fs": "[fs]", "_kelvin": "[K]", "_kj_mol": "[kJ/mol]"}
    for section in sections(Config):
        for name, field in section.model_fields.items():
            for suffix, unit in units.items():
                assert not name.endswith(suffix) or unit in field.description, name


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_shipped_configurations_load(path: Path) -> None:
    schema = PlanarConfig if path.stem.startswith("planar") else Config
    assert load_config(schema, path).seed == 0


@pytest.mark.parametrize(
    ("name", "schema"), [("alanine_dipeptide", Config), ("planar", PlanarConfig)]
)
def test_the_default_file_is_the_default_of_the_code(name: str, schema: type[Section]) -> None:
    default = next(path for path in CONFIGS if path.stem == name)
    assert load_config(schema, default) == schema()


def test_yaml_round_trip(tmp_path: Path) -> None:
    config = load_config(Config, None, ["seed=7", "emulator.learning_rate=3e-4", "energy.width=64"])
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(config))
    assert load_config(Config, path) == config
    assert dotted_values(config)["emulator.learning_rate"] == 3e-4


def test_arguments_win_over_the_file_and_the_last_one_wins(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("seed: 1\nenergy:\n  width: 32\n  depth: 2\n")
    config = load_config(Config, path, ["energy.width=48", "energy.width=64"])
    assert (config.seed, config.energy.width, config.energy.depth) == (1, 64, 2)
    assert config.energy.num_negatives == Config().energy.num_negatives


@pytest.mark.parametrize("text", ["1e-3", "1E-3", "0.001", "1.0e-3", ".1e-2"])
def test_floats_are_read_as_everybody_writes_them(text: str) -> None:
    assert load_config(Config, None, [f"energy.learning_rate={text}"]).energy.learning_rate == 1e-3


def test_any_section_can_be_the_root() -> None:
    config = load_config(EnergyConfig, None, ["width=64"])
    assert config == EnergyConfig(width=64)
    with pytest.raises(InputError, match="nearest is num_negatives,"):
        load_config(EnergyConfig, None, ["num_negativs=3"])


def test_a_pdb_replaces_the_default_sequence() -> None:
    assert load_config(Config, None, ["target.pdb=mine.pdb"]).target.sequence is None


@pytest.mark.parametrize(
    ("override", "nearest"),
    [
        ("energy.num_negativs=64", "energy.num_negatives"),
        ("enrgy.num_negatives=64", "energy.num_negatives"),
        ("num_negatives=64", "energy.num_negatives"),
        ("temperature=310", "target.temperature_kelvin"),
        ("sed=1", "seed"),
    ],
)
def test_an_unknown_key_names_the_nearest_one(override: str, nearest: str) -> None:
    key = override.partition("=")[0]
    with pytest.raises(InputError, match=rf"key {key}: .* nearest is {nearest},"):
        load_config(Config, None, [override])


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("seed=seven", "a valid integer"),
        ("seed=1.5", "a valid integer"),
        ("seed=true", "a valid integer"),
        ("energy.num_negatives='64'", "a valid integer"),
        ("target.temperature_kelvin=-300", "greater than 0"),
        ("target.temperature_kelvin=.nan", "a finite number"),
        ("cluster.num_workers=0", "greater than or equal to 1"),
        ("evaluate.clip_fraction=1", "less than 1"),
        ("energy.precision=bf16", "'fp32'"),
        ("energy.optimizer=moun", "one of adamw, muon, got 'moun'; the nearest is muon"),
        ("energy=3", "a mapping of settings"),
        ("transferable.training_molecules=[]", "a longer list"),
        ("transferable.training_molecules=AA", "a list, [A, B]"),
        ("transferable.internal=maybe", "true or false"),
        ("target.sequence=null", "one of sequence, pdb and topology"),
        ("target.state_phi_max=-1.0", "state_phi_min below state_phi_max"),
        ("evaluate.num_exact=20000", "num_exact at most num_samples"),
        ("evaluate.num_exact_frames=1", "num_exact_frames 0 or at least 2"),
        ("energy.num_steps=100", "warmup_steps below num_steps"),
    ],
)
def test_a_wrong_value_names_what_is_expected(override: str, expected: str) -> None:
    key = override.partition("=")[0]
    with pytest.raises(InputError) as caught:
        load_config(Config, None, [override])
    line = str(caught.value)
    assert f"expected {expected}" in line
    assert key.partition(".")[0] in line
    assert "\n" not in line


@pytest.mark.parametrize("override", ["seed", "=3", "energy.width=["])
def test_malformed_arguments(override: str) -> None:
    with pytest.raises(InputError, match=r"^argument "):
        load_config(Config, None, [override])


@pytest.mark.parametrize("text", ["- a\n- b\n", "seed: [1\n", "just words"])
def test_malformed_files(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=r"config\.yaml"):
        load_config(Config, path)


def test_absent_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        load_config(Config, tmp_path / "absent.yaml")


def test_configuration_is_frozen_and_dumps_to_plain_yaml() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Config().seed = 3
    assert yaml.safe_load(to_yaml(Config()))["target"]["sequence"] == "ACE-ALA-NME"


def test_keys_of_earlier_versions_are_read_with_a_line_that_names_the_new_ones(
    caplog: pytest.LogCaptureFixture,
) -> None:
    config = load_config(Config, None, ["reference.max_stderr_kt=0.2"])
    assert config.reference.max_stderr_kT == 0.2
    assert caplog.messages == [
        "configuration key max_stderr_kt is now called max_stderr_kT",
    ]
    assert load_config(SweepConfig, None, ["job=toy"]).job == "planar"
    assert "planar" in caplog.messages[-1]
