import numpy as np
import pytest
from matplotlib.collections import PathCollection

from bnce_dist.report.sweep import SweepResults, parallel_coordinates, slices


@pytest.fixture
def sweep() -> SweepResults:
    return SweepResults(
        metric=np.array([0.01, 0.1, 1.0]),
        metric_name="kl",
        finished=np.array([True, True, False]),
        settings={
            "energy.learning_rate": [1e-3, 1e-4, 1e-2],
            "energy.width": [32, 64, 48],
            "energy.interpolant": ["linear", "trigonometric", "linear"],
        },
        logarithmic={"energy.learning_rate"},
    )


def test_parallel_coordinates_place_every_trial_on_every_axis(sweep: SweepResults) -> None:
    axis = parallel_coordinates(sweep).axes[0]
    lines = {tuple(np.round(line.get_ydata(), 6)): line for line in axis.lines}
    # Learning rate by its logarithm, width linearly, words in order, metric by its logarithm.
    assert lines.keys() == {(0.5, 0, 0, 0), (0, 1, 1, 0.5), (1, 0.5, 0, 1)}
    styles = {line.get_linestyle() for line in lines.values()}
    assert lines[1, 0.5, 0, 1].get_linestyle() in styles - {lines[0, 1, 1, 0.5].get_linestyle()}
    widths = {heights: line.get_linewidth() for heights, line in lines.items()}
    assert max(widths, key=lambda heights: widths[heights]) == (0.5, 0, 0, 0), "the best stands out"
    texts = {text.get_text() for text in axis.texts}
    assert texts >= {"0.0001", "0.01", "32", "64", "linear", "trigonometric"}


def test_slices_show_the_metric_against_each_setting(sweep: SweepResults) -> None:
    panels = [panel for panel in slices(sweep).axes if panel.has_data()]
    assert [panel.get_xlabel() for panel in panels] == list(sweep.settings)
    assert [panel.get_xscale() for panel in panels] == ["log", "linear", "linear"]
    for panel, expected in zip(panels, ([1e-3, 1e-4, 1e-2], [32, 64, 48], [0, 1, 0]), strict=True):
        finished, stopped, best = (
            collection.get_offsets().tolist()
            for collection in panel.collections
            if isinstance(collection, PathCollection)
        )
        points = [list(point) for point in zip(expected, sweep.metric, strict=True)]
        assert finished == points[:2]
        assert stopped == points[2:]
        assert best == points[:1]


def test_a_setting_that_never_varied_is_drawn(sweep: SweepResults) -> None:
    constant = {"a": [3.0, 3.0, 3.0], "b": ["x", "x", "x"]}
    results = SweepResults(**{**vars(sweep), "settings": constant})
    heights = [
        line.get_ydata()[:2].tolist() for line in parallel_coordinates(results).axes[0].lines
    ]
    assert heights == [[0.5, 0.5]] * 3
    slices(results)
