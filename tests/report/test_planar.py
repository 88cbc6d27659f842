from dataclasses import replace

import numpy as np

from bnce_dist.report.planar import DensityRow, density_figure
from bnce_dist.report.results import Array


def row(system: str, *, learned_shift: float = 0.0) -> DensityRow:
    """Return a system with all its mass in the cell right of the centre, where x is large."""
    true = np.full((4, 4), -np.inf)
    true[3, 1] = 2.0
    wide = np.zeros((4, 4)) + learned_shift
    return DensityRow(
        system=system,
        half_width=2.0,
        true=true,
        learned={"score": wide, "hybrid": true + learned_shift},
        divergences={"score": 2.7726, "hybrid": 0.0},
        samples=np.array([[1.5, -0.5], [1.4, -0.6]]),
    )


def images(system_row: DensityRow) -> list[Array]:
    figure = density_figure([system_row])
    return [np.asarray(axis.images[0].get_array()) for axis in figure.axes if axis.images]


def test_densities_are_normalised_and_the_first_coordinate_runs_to_the_right() -> None:
    true, score, hybrid = images(row("one"))
    assert true[1, 3] == 1.0
    assert true.sum() == 1.0
    np.testing.assert_allclose(score, 1 / 16)
    np.testing.assert_array_equal(hybrid, true)


def test_constants_of_unnormalised_densities_do_not_show() -> None:
    for left, right in zip(images(row("one")), images(row("one", learned_shift=80)), strict=True):
        np.testing.assert_allclose(left, right)


def test_a_row_per_system_shares_its_scale_and_prints_the_divergences() -> None:
    figure = density_figure([row("one"), row("two")])
    assert [axis.get_title(loc="left") for axis in figure.axes[:4]] == [
        "True",
        "Score matching",
        "Hybrid",
        "Samples by ODE",
    ]
    assert [axis.get_ylabel() for axis in figure.axes[::4]] == ["one", "two"]
    for line in (figure.axes[:3], figure.axes[4:7]):
        limits = {axis.images[0].get_clim() for axis in line}
        assert limits == {(0.0, 1.25)}
        assert [axis.texts[0].get_text() for axis in line[1:]] == ["KL 2.7726", "KL 0.0000"]
    (points,) = figure.axes[3].collections
    np.testing.assert_array_equal(points.get_offsets(), [[1.5, -0.5], [1.4, -0.6]])


def test_a_density_that_one_system_lacks_leaves_a_gap() -> None:
    whole = row("one")
    lacking = replace(row("two"), learned={"hybrid": whole.learned["hybrid"]})
    figure = density_figure([whole, lacking])
    assert [len(axis.images) for axis in figure.axes] == [1, 1, 1, 0, 1, 0, 1, 0]
