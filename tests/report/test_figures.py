import dataclasses
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.image import imread

from bnce_dist.chem.state import State
from bnce_dist.core.condition import Interval, Joined
from bnce_dist.core.errors import InputError
from bnce_dist.core.metrics import FreeEnergyProfile
from bnce_dist.core.tails import fit_tail
from bnce_dist.core.weights import Weights
from bnce_dist.report.energies import energy_figure
from bnce_dist.report.figures import write_figures
from bnce_dist.report.log_density import log_density_figure
from bnce_dist.report.losses import loss_figure
from bnce_dist.report.profile import profile_figure
from bnce_dist.report.ramachandran import ramachandran_figure
from bnce_dist.report.results import RunResults
from bnce_dist.report.temperatures import temperature_figure
from bnce_dist.report.weights import weights_figure


def test_ramachandran_puts_phi_on_x_and_prints_the_weight_of_the_state() -> None:
    phi = np.radians([61.0, -89.0])
    psi = np.radians([-119.0, 31.0])
    panels = {
        "Emulator": (phi, psi, np.zeros(2)),
        "Reweighted": (phi, psi, np.log([1.0, 3.0])),
    }
    figure = ramachandran_figure(panels, num_bins=180)
    emulator, reweighted = (axis.collections[0].get_array() for axis in figure.axes[:2])
    cells = {(30, 120): 0.0, (105, 45): 0.0}
    assert {tuple(i): emulator[tuple(i)] for i in np.argwhere(~emulator.mask)} == cells
    assert reweighted[30, 120] == pytest.approx(np.log(3.0))
    shares = [axis.get_title(loc="right") for axis in figure.axes[:2]]
    assert shares == ["50.0 % in state", "25.0 % in state"]
    assert [axis.get_title(loc="left") for axis in figure.axes[:2]] == list(panels)


def test_ramachandran_panels_share_one_scale_and_leave_high_bins_white() -> None:
    phi, psi = np.array([0.1, 2.5]), np.array([0.1, 2.5])
    panels = {name: (phi, psi, np.array([0.0, low])) for name, low in (("a", -7.9), ("b", -8.1))}
    figure = ramachandran_figure(panels)
    meshes = [axis.collections[0] for axis in figure.axes[:2]]
    assert meshes[0].norm is meshes[1].norm
    assert [int((~mesh.get_array().mask).sum()) for mesh in meshes] == [2, 1]


def test_profile_draws_the_values_and_their_difference_in_degrees() -> None:
    centres = np.linspace(-np.pi, np.pi, 60, endpoint=False)
    value = 3 - 2 * np.cos(centres)
    reference = FreeEnergyProfile(centres, value, value - 0.1, value + 0.1)
    shifted = value + 0.25
    shifted[10] = np.inf
    reweighted = FreeEnergyProfile(centres, shifted, shifted - 0.2, shifted + 0.3)
    figure = profile_figure(
        reweighted, reference, reference, delta_f=(3.94, 0.06), delta_f_reference=(3.9, 0.02)
    )
    upper, lower = figure.axes
    drawn = {line.get_label(): line for line in upper.lines}["Reweighted"]
    shown = np.arange(60) != 10
    np.testing.assert_allclose(drawn.get_xdata(), np.degrees(centres))
    np.testing.assert_allclose(drawn.get_ydata()[shown], value[shown] + 0.25)
    assert np.isnan(drawn.get_ydata()[10])
    np.testing.assert_allclose(lower.lines[-1].get_ydata()[shown], 0.25)
    band = lower.collections[-1].get_paths()[0].vertices[:, 1]
    assert (band.min(), band.max()) == pytest.approx((0.05, 0.55))
    assert "3.94 ± 0.06 kT, reference 3.90 ± 0.02 kT" in upper.get_title(loc="left")


def test_energy_histograms_are_densities_and_count_what_lies_beyond() -> None:
    rng = np.random.default_rng(0)
    md = rng.normal(-27.0, 5.0, 100_000)
    emulator = np.concatenate([rng.normal(-25.0, 5.0, 95_000), np.full(5_000, np.inf)])
    finite = np.isfinite(emulator)
    to_md = np.full(100_000, -np.inf)
    to_md[finite] = -0.5 * ((emulator[finite] + 27) ** 2 - (emulator[finite] + 25) ** 2) / 25
    figure = energy_figure(
        {
            "Emulator": (emulator, np.zeros(100_000)),
            "Reweighted": (emulator, to_md),
            "Molecular dynamics": (md, np.zeros(100_000)),
        }
    )
    histograms = [patch.get_data() for patch in figure.axes[0].patches]
    inside = [(h.values * np.diff(h.edges)).sum() for h in histograms]
    np.testing.assert_allclose(inside, [0.95, 1.0, 1.0], atol=0.002)
    edges = histograms[0].edges
    centres = 0.5 * (edges[1:] + edges[:-1])
    normal = np.exp(-0.5 * ((centres + 27) / 5) ** 2) / (5 * np.sqrt(2 * np.pi))
    for histogram in histograms[1:]:
        np.testing.assert_allclose(histogram.values, normal, atol=0.004)
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert labels == ["Emulator (5.0 % beyond the axis)", "Reweighted", "Molecular dynamics"]


def test_losses_are_drawn_raw_and_smoothed_on_the_scale_that_suits() -> None:
    step = np.arange(10, 1001, 10.0)
    wide, negative = 10 * np.exp(-step / 300), 2 - step / 250
    figure = loss_figure(
        {
            "emulator": {"loss": wide, "step": step},
            "energy": {"infonce": negative, "loss": np.full(100, 5.0), "step": step},
        }
    )
    emulator, energy, infonce, empty = figure.axes
    assert [axis.get_title(loc="left") for axis in (emulator, energy, infonce)] == [
        "Emulator: loss",
        "Energy model: loss",
        "Energy model: InfoNCE",
    ]
    assert not empty.axison
    assert (emulator.get_yscale(), infonce.get_yscale()) == ("log", "linear")
    np.testing.assert_array_equal(infonce.lines[0].get_ydata(), negative)
    np.testing.assert_array_equal(infonce.lines[0].get_xdata(), step)
    # A symmetric filter leaves straight lines as they are, on the axis' own scale.
    inner = slice(10, -10)
    np.testing.assert_allclose(infonce.lines[1].get_ydata()[inner], negative[inner], atol=1e-12)
    np.testing.assert_allclose(emulator.lines[1].get_ydata()[inner], wide[inner])
    np.testing.assert_allclose(energy.lines[1].get_ydata(), 5.0)


def test_weights_show_the_pareto_tail_of_each_side_as_a_straight_line() -> None:
    rng = np.random.default_rng(0)
    shapes = {"State": 0.7, "Rest": 0.4}
    log_weights = {side: rng.exponential(k, 20_000) for side, k in shapes.items()}  # ln of Pareto
    # One in four stands for all: the line is that of the whole.
    tails = {
        "State": (log_weights["State"][:5_000], np.full(5_000, 4.0)),
        "Rest": (log_weights["Rest"], np.ones(20_000)),
    }
    weights = Weights(np.concatenate([*log_weights.values()]))
    figure = weights_figure(weights, tails, clip_fraction=0.01)
    histogram, tail, _ = figure.axes
    relative = np.sort(weights.normalised)[::-1] * 40_000
    np.testing.assert_allclose(histogram.lines[0].get_xdata(), np.log(relative[400]))
    labels = {line.get_label(): line for line in tail.lines}
    fits = {label.split(":")[0]: line for label, line in labels.items() if "fit" in label}
    for side, k in shapes.items():
        fit = fits[side]
        assert fit.get_label().endswith(f"k = {fit_tail(*tails[side]).shape:.2f}")
        slope = np.polyfit(np.log(fit.get_xdata()[5:]), np.log(fit.get_ydata()[5:]), 1)[0]
        assert slope == pytest.approx(-k, abs=0.08)
        # The quantile function of a Pareto variable over its mean, 1 / (1 - k).
        exact = (1 - k) * (20_000 / (fit.get_xdata() - 0.5)) ** k
        np.testing.assert_allclose(fit.get_ydata()[20:100], exact[20:100], rtol=0.15)


def test_weights_show_what_share_of_the_weight_the_largest_hold() -> None:
    k = 0.5
    log_weights = np.random.default_rng(0).exponential(k, 20_000)
    weights = Weights(log_weights)
    share = weights_figure(weights, {}).axes[2]
    # The largest share s of Pareto weights holds s^(1 - k) of the sum.
    samples, cumulative = share.lines[0].get_data()
    np.testing.assert_allclose(cumulative, 100 * (samples / 100) ** (1 - k), atol=2)
    assert f"ESS {100 * weights.ess_fraction:.1f} %" in share.texts[0].get_text()


def test_weights_survive_rejected_samples() -> None:
    log_weights = np.random.default_rng(0).normal(size=1_000)
    log_weights[:100] = -np.inf
    figure = weights_figure(Weights(log_weights), {"Rest": (log_weights, np.ones(1_000))})
    assert "n = 1,000" in figure.axes[2].texts[0].get_text()


def test_weights_survive_one_sample_with_all_the_weight() -> None:
    log_weights = np.random.default_rng(0).normal(size=1_000)
    log_weights[7] = 200.0
    figure = weights_figure(Weights(log_weights), {"Rest": (log_weights, np.ones(1_000))})
    assert "ESS 0.1 %" in figure.axes[2].texts[0].get_text()


def test_weights_too_few_for_a_tail_are_drawn_without_one() -> None:
    log_weights = np.random.default_rng(0).normal(size=1_000)
    few = {"State": (log_weights[:12], np.ones(12))}
    (legend,) = weights_figure(Weights(log_weights), few).axes[1].get_legend().get_texts()
    assert legend.get_text() == "State: no tail to fit"


def test_log_density_reports_the_error_of_the_model() -> None:
    exact = np.linspace(30.0, 50.0, 1_000)
    learned = exact + 0.3 + 0.4 * np.tile([-1.0, 1.0], 500)
    figure = log_density_figure(exact, learned)
    scatter, histogram = figure.axes
    np.testing.assert_array_equal(scatter.lines[0].get_data(), [exact, learned])
    assert "n = 1,000\nRMSE 0.50 kT" in scatter.texts[0].get_text()
    assert "mean +0.30 kT\nsd 0.40 kT" in histogram.texts[0].get_text()
    counts = histogram.patches[0].get_data().values
    assert sorted(counts)[-2:] == [500, 500]


def test_free_energy_is_energy_minus_temperature_times_entropy(run: RunResults) -> None:
    unreachable = dict.fromkeys(run.temperatures[0]) | {"temperature_kelvin": 900.0}
    (axis,) = temperature_figure([*run.temperatures, unreachable]).axes
    curves = [container.lines[0].get_data(orig=False) for container in axis.containers]
    for kelvin, _ in curves:
        assert list(kelvin) == [280.0, 300.0, 350.0]
    free_energy, energy, minus_entropy = (np.asarray(values, dtype=float) for _, values in curves)
    np.testing.assert_allclose(free_energy, energy + minus_entropy)


def test_all_figures_are_written_whatever_the_global_style(tmp_path: Path, run: RunResults) -> None:
    with mpl.rc_context({"lines.linewidth": 17, "figure.dpi": 30}):
        before = dict(mpl.rcParams)
        paths = write_figures(tmp_path / "figures", run)
        assert dict(mpl.rcParams) == before
    assert [path.name for path in paths] == [
        "ramachandran.png",
        "free_energy_profile.png",
        "energies.png",
        "torsions.png",
        "losses.png",
        "weights.png",
        "log_density.png",
        "temperatures.png",
    ]
    assert sorted(paths) == sorted((tmp_path / "figures").iterdir())
    for path in paths:
        pixels = imread(path)[..., :3]
        height, width = pixels.shape[:2]
        assert 900 <= width <= 1450
        assert 400 <= height <= 1000
        # Something is drawn, and not over everything.
        assert 0.03 < (pixels.min(-1) < 0.9).mean() < 0.9


def test_a_reference_of_one_replica_still_has_a_figure(tmp_path: Path, run: RunResults) -> None:
    replica = np.zeros_like(run.reference.replica)
    single = dataclasses.replace(run, reference=dataclasses.replace(run.reference, replica=replica))
    assert len(write_figures(tmp_path, single)) == 8


def test_an_unwritable_folder_is_an_input_error(tmp_path: Path, run: RunResults) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="writable folder"):
        write_figures(tmp_path / "file", run)


def test_the_border_of_a_state_is_drawn_where_it_lies() -> None:
    """A rectangle that leads through pi in psi: its border lies at the edges, in two pieces."""
    angles = {"psi": Interval("psi", 2.0, -2.0), "phi": Interval("phi", -1.0, 1.0)}
    condition = Joined((angles["phi"], angles["psi"]), every=True)
    state = State(condition, frozenset({"phi"}), "a rectangle")
    corners = np.array([0.0, 2.5]), np.array([3.0, 3.0])
    figure = ramachandran_figure({"a": (*corners, np.log([3.0, 1.0]))}, state=state)
    assert figure.axes[0].get_title(loc="right") == "75.0 % in state"
    (outline,) = (c for c in figure.axes[0].collections if hasattr(c, "levels"))
    vertices = np.concatenate([path.vertices for path in outline.get_paths()])
    at_phi = np.isclose(np.abs(vertices[:, 0]), np.degrees(1.0), atol=0.5)
    at_psi = np.isclose(np.abs(vertices[:, 1]), np.degrees(2.0), atol=0.5)
    assert (at_phi | at_psi).all()
    assert at_phi.any()
    assert at_psi.any()


def test_only_an_interval_of_phi_is_shaded() -> None:
    centres = np.linspace(-np.pi, np.pi, 60, endpoint=False)
    profile = FreeEnergyProfile(centres, np.ones(60), np.zeros(60), np.full(60, 2.0))
    values = {"delta_f": (1.0, 0.1), "delta_f_reference": (1.1, 0.1)}
    plain = profile_figure(profile, profile, profile, **values)
    other = profile_figure(profile, profile, profile, **values, state=None)
    assert len(plain.axes[0].patches) == 1
    assert len(other.axes[0].patches) == 0
    titles = [figure.axes[0].get_title(loc="left") for figure in (plain, other)]
    assert [title.partition(":")[0] for title in titles] == ["State in grey", "State"]
