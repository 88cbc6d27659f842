"""The density of pretrained samples, and comparisons with closed forms."""

import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.special import i0, modstruve
from typer.testing import CliRunner, Result

from bnce_dist.chem.state import State
from bnce_dist.cli.evaluate_pretrained import app
from bnce_dist.core.errors import InputError
from bnce_dist.generator.samples import Samples
from bnce_dist.pipeline.executor import LocalExecutor
from bnce_dist.runs.pretrained.comparison import (
    Comparison,
    load_energies,
    load_umbrella,
    profile_delta_f,
)
from bnce_dist.runs.pretrained.config import PretrainedConfig
from bnce_dist.runs.pretrained.metrics import pretrained_metrics, summary
from bnce_dist.runs.pretrained.results import evaluate_pretrained_field
from bnce_dist.runs.pretrained.run import Evaluated

WEIGHTS = Path(__file__).parents[3].parent / "shared/reference/published/unweighted_ot_ema.pt"
needs_weights = pytest.mark.skipif(not WEIGHTS.exists(), reason="pretrained weights are not here")
SMALL = (
    "target.potential=force_field",
    "target.state_phi_min=-2.0",
    "target.state_phi_max=-1.2",
    "samples.num_training=100",
    "samples.num_held_out=100",
    "samples.shard_size=50",
    "samples.num_steps=3",
    "energy.num_steps=20",
    "energy.warmup_steps=2",
    "energy.width=16",
    "evaluate.num_exact=10",
    "evaluate.num_exact_weighted=26",
    "evaluate.num_bootstrap=20",
    "evaluate.annealing.num_levels=3",
    "evaluate.annealing.num_pilot=20",
    "cluster.executor=local",
)


def evaluate(output: Path, *arguments: str | Path) -> Result:
    command = ["--output", output, "--name", "run", *arguments]
    return CliRunner().invoke(app, [str(part) for part in command])


def umbrella_file(path: Path, num_bins: int, left_out: int) -> Path:
    """Write exp(cos(phi)), with one bin left out and a standard deviation of 0.2 kT."""
    centres = (np.arange(num_bins) + 0.5) * 2 * math.pi / num_bins - math.pi
    kept = np.delete(centres, left_out)
    np.savez(path, xs=kept, f_i_mean=7.0 - np.cos(kept), f_i_std=np.full(len(kept), 0.2))
    return path


def test_a_profile_is_read_onto_all_bins_and_normalised(tmp_path: Path) -> None:
    profile = load_umbrella(umbrella_file(tmp_path / "umbrella.npz", 999, left_out=3))
    assert len(profile.centres) == 999
    assert np.isinf(profile.value_kT[3])
    # The von Mises distribution: p(phi) = exp(cos phi) / (2 pi I0(1)).
    exact = np.log(2 * math.pi * i0(1.0)) - np.cos(profile.centres)
    others = np.arange(999) != 3
    np.testing.assert_allclose(profile.value_kT[others], exact[others], atol=1e-3)
    value, error = profile_delta_f(profile, (-math.pi / 2, math.pi / 2))
    # The share beyond a right angle is 1/2 - L0(1) / (2 I0(1)), L0 the modified Struve function.
    share = 0.5 - modstruve(0, 1.0) / (2 * i0(1.0))
    assert value == pytest.approx(math.log(share / (1 - share)), abs=5e-3)
    assert error == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("array", "content", "message"),
    [
        ("f_i_std", np.ones(3), r"one value and deviation per centre, got \(36,\) and"),
        ("f_i_mean", np.full(36, np.nan), "numbers at rising centres"),
        ("xs", np.zeros(36), "numbers at rising centres"),
    ],
)
def test_a_profile_that_is_none_is_refused(
    tmp_path: Path, array: str, content: np.ndarray, message: str
) -> None:
    path = umbrella_file(tmp_path / "umbrella.npz", 37, left_out=36)
    with np.load(path) as arrays:
        altered = dict(arrays) | {array: content}
    np.savez(path, **altered)
    with pytest.raises(InputError, match=message):
        load_umbrella(path)


def test_a_profile_without_the_state_is_refused_before_anything_is_computed(
    tmp_path: Path,
) -> None:
    profile = load_umbrella(umbrella_file(tmp_path / "umbrella.npz", 36, left_out=17))
    # The bins are ten degrees wide: none has its centre in a hundredth of a radian.
    for state in (State.from_interval(0.0, 0.01), State.from_interval(-math.pi, math.pi)):
        run = SimpleNamespace(target=SimpleNamespace(state=state), execute=pytest.fail)
        with pytest.raises(InputError, match="expected bins in the state and outside, got none"):
            evaluate_pretrained_field(run, LocalExecutor(), Comparison(profile))


def samples_of(phi: np.ndarray, log_density: np.ndarray, state: State) -> Samples:
    """Return samples of exp(cos(phi)) towards exp(-cos(phi) - 3), the first hundred broken."""
    number = len(phi)
    broken = np.arange(number) < 100
    return Samples(
        reduced_potential=np.where(np.arange(number) < 103, np.inf, np.cos(phi) + 3.0),
        log_density=log_density,
        log_density_exact=np.where(np.arange(number) < 3000, np.cos(phi), np.nan),
        num_random=3000,
        phi=phi,
        psi=np.zeros(number),
        in_state=state.contains(phi, np.zeros(number)),
        valid=~broken,
        native_chirality=np.ones(number, dtype=bool),
        mirrored=np.zeros(number, dtype=bool),
        inverted=None,
        cpu_seconds=np.full(number, 0.1),
        cpu_seconds_exact=np.full(3000, 2.0),
    )


def test_weights_undo_a_known_bias_whatever_was_learned(tmp_path: Path) -> None:
    """Samples of one von Mises distribution, weighted to another, have the other's delta_f."""
    rng = np.random.default_rng(0)
    phi, state = rng.vonmises(0.0, 1.0, 20_000), State.from_interval(0.0, math.pi / 2)
    far = rng.vonmises(math.pi, 1.0, 50_000)
    inside = ((far > 0) & (far < math.pi / 2)).mean()
    expected = math.log((1 - inside) / inside)
    umbrella = load_umbrella(umbrella_file(tmp_path / "umbrella.npz", 999, left_out=3))
    comparison = Comparison(umbrella, np.cos(far) + 13.0, 10.0)
    # What was learned is twice too steep, so that the state, where exp(cos) is large, is too rare.
    for slope in (1.0, 2.0):
        learned = slope * np.cos(phi) + 1.0
        evaluated = Evaluated(samples_of(phi, learned, state), None, None, learned + 0.5)
        metrics = pretrained_metrics(PretrainedConfig(), state, evaluated, comparison)
        assert abs(metrics["delta_f_kT"] - expected) < 3 * metrics["delta_f_stderr_kT"] < 0.4
        assert metrics["log_density_error_sd_kT"] == pytest.approx(
            (slope - 1) * np.cos(phi[:3000]).std()
        )
        off = abs(metrics["delta_f_learned_kT"] - expected)
        assert off < 0.1 if slope == 1 else off > 0.5
        assert metrics["energy_w2_kT"] < (0.05 if slope == 1 else 0.3)
    assert metrics["delta_f_unweighted_kT"] < expected - 0.5
    assert metrics["energy_w2_emulator_kT"] > 0.5
    assert (metrics["num_invalid"], metrics["num_without_energy"]) == (100, 3)
    assert metrics["log_density_overfit_kT"] == pytest.approx(0.5, abs=0.02)
    # A profile of something else: the verdict says so.
    assert not metrics["verdict"]["reliable"]
    assert any("from its reference" in reason for reason in metrics["verdict"]["reasons"])
    low, high = metrics["delta_f_interval_kT"]
    assert summary(metrics).splitlines()[0].endswith(f"95 % interval [{low:.2f}, {high:.2f}]")


@needs_weights
def test_a_run_goes_from_weights_to_a_free_energy_and_is_not_repeated(tmp_path: Path) -> None:
    umbrella = umbrella_file(tmp_path / "umbrella.npz", 36, left_out=17)
    np.save(tmp_path / "energies.npy", np.random.default_rng(0).normal(size=1000))
    comparison = ("--umbrella", umbrella, "--md-energies", tmp_path / "energies.npy")
    first = evaluate(tmp_path, f"weights={WEIGHTS}", *SMALL, *comparison)
    assert first.exit_code == 0, first.output
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["num_samples"] == 100
    assert 20 < metrics["num_mirrored"] < 80
    assert metrics["log_density_num_samples"] == 10
    assert metrics["num_exact_in_state"] + metrics["num_exact_outside_state"] >= 20
    assert metrics["annealing_num_levels"] == 3
    assert min(metrics["annealing_acceptance"]) > 0
    assert {path.name for path in (tmp_path / "run" / "figures").iterdir()} == {
        "free_energy_profile.png",
        "energies.png",
    }
    trained = (tmp_path / "run" / "energy" / "energy.pt").stat().st_mtime_ns
    second = evaluate(tmp_path, f"weights={WEIGHTS}", *SMALL, *comparison)
    assert second.stdout == first.stdout
    assert (tmp_path / "run" / "energy" / "energy.pt").stat().st_mtime_ns == trained
    other = evaluate(tmp_path, f"weights={WEIGHTS}", *SMALL, "seed=1")
    assert_refused(other, "a run with seed=0")


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["target.potential=xbt"], ["one of xtb, force_field", "nearest is xtb"]),
        (["weights=unweighted_ot_emma.pt", *SMALL], ["unweighted_ot_ema.pt"]),
        (["weights=unweighted_ot_ema.pt", *SMALL], ["got nothing", "check the path"]),
        (["evaluate.num_exact=9000"], ["at most samples.num_held_out, 5000", "got 9000"]),
        (["--umbrella", "absent.npz"], ["absent.npz", "xs, f_i_mean"]),
    ],
)
def test_bad_input(tmp_path: Path, arguments: list[str], parts: list[str]) -> None:
    assert_refused(evaluate(tmp_path, *arguments), *parts)


def assert_refused(result: Result, *parts: str) -> None:
    assert result.exit_code == 2, result.output
    line = result.stderr.splitlines()[-1]
    for part in ("error: ", *parts):
        assert part in line


def test_files_to_compare_with(tmp_path: Path) -> None:
    np.savez(
        tmp_path / "a.npz", xs=np.array([0.0, 0.1, 0.25]), f_i_mean=np.zeros(3), f_i_std=np.zeros(3)
    )
    np.save(tmp_path / "b.npy", np.array([1.0, math.nan]))
    (tmp_path / "c.npy").write_text("energies")
    with pytest.raises(InputError, match="equal bins"):
        load_umbrella(tmp_path / "a.npz")
    with pytest.raises(InputError, match="expected finite energies"):
        load_energies(tmp_path / "b.npy")
    with pytest.raises(InputError, match=r"a \.npy file of energies"):
        load_energies(tmp_path / "c.npy")
