import base64
import html
import io
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread

from bnce_dist.chem.molecule import Molecule
from bnce_dist.report.conformations import Basin, structures
from bnce_dist.report.figures import _profile, write_figures
from bnce_dist.report.html import (
    CAPTIONS,
    RunReport,
    _estimates,
    diagnostics,
    state_text,
    write_fleet_report,
    write_run_report,
)
from bnce_dist.report.results import RunResults, reference_method

HOSTILE = "</script><script>document.title = 'broken out'</script>"
SWITCHES = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1280,900",
)
METRICS: dict[str, Any] = {
    "seed": 3,
    "delta_f_kT": 3.914,
    "delta_f_stderr_kT": 0.046,
    "delta_f_interval_kT": [3.826, 4.006],
    "delta_f_reference_kT": 3.844,
    "delta_f_reference_stderr_kT": 0.016,
    "delta_f_reference_source": "reference.json",
    "delta_f_reference_run_kT": 3.765,
    "delta_f_reference_run_stderr_kT": 0.064,
    "delta_f_reference_run_reason": "no trend, replicas agree",
    "delta_f_learned_kT": 3.83,
    "delta_f_learned_stderr_kT": 0.03,
    "delta_f_exact_kT": 3.72,
    "delta_f_exact_stderr_kT": 0.09,
    "num_in_state": 2520,
    "weight_in_state": 0.0196,
    "ess_fraction": 0.434,
    "ess_fraction_clipped": 0.469,
    "ess_num_samples": 10_000,
    "pareto_k": 0.30,
    "annealing_num_levels": 19,
    "annealing_num_levels_at_limit": 3,
    "annealing_acceptance": [0.71, 0.84, 0.8],
    "ess_fraction_one_step": 0.213,
    "clip_fraction": 0.002,
    "num_rejected": 5,
    "num_invalid": 2,
    "num_wrong_chirality": 3,
    "num_mirrored": 11,
    "log_density_rmse_kT": 0.38,
    "log_density_num_samples": 1000,
    "speedup_over_exact": 3273.0,
    "energy_w2_emulator_kT": 2.5,
    "energy_w2_kT": 0.26,
    "torsion_w2_emulator_rad": 1.14,
    "torsion_w2_rad": 0.22,
    "torsion_w2_baseline_rad": 0.13,
    "seconds": {"simulate": 140.0, "evaluate": 60.0},
    "peak_memory_gb": 2.9,
    "hardware": "a machine, 2 logical cores",
    "commit": "0123abc",
    "versions": {"torch": "2.13.0"},
    "verdict": {
        "reliable": False,
        "reasons": ["Only 4 samples < 100 carry the state."],
        "advice": ["Draw more samples."],
    },
}
SETTINGS = {
    "target.temperature_kelvin": 300.0,
    "target.force_field": ["amber14-all.xml"],
    "target.state_phi_min": 0.0,
    "target.state_phi_max": 2.0,
}
Script = Callable[[str], Any]


@pytest.fixture(scope="module")
def page(run: RunResults, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    molecule = Molecule.from_sequence("ACE-ALA-NME")
    straight, bent = molecule.positions_nm, molecule.positions_nm.copy()
    bent[-6:] += [0.0, 0.1, 0.05]
    report = RunReport(
        name=HOSTILE,
        molecule=molecule.name,
        metrics=METRICS,
        settings=SETTINGS,
        figures=write_figures(folder / "figures", run),
        structures=structures(
            molecule, run, [Basin(0, 0.6), Basin(1, 0.4)], np.stack([straight, bent])
        ),
    )
    return write_run_report(folder / "report.html", report)


def test_the_state_is_named_as_it_was_asked_for() -> None:
    assert state_text(SETTINGS) == "0.0 < φ < 2.0 rad"
    assert state_text(SETTINGS | {"target.state": "psi in [0, 1]"}) == "psi in [0, 1] (rad)"


@pytest.fixture(scope="module")
def chrome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("needs chromium and chromedriver (Debian: chromium, chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    profile = f"--user-data-dir={tmp_path_factory.mktemp('profile')}"
    for switch in (*SWITCHES, profile):
        options.add_argument(switch)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield browser
    browser.quit()


@pytest.mark.slow
def test_a_browser_shows_the_report_and_turns_the_molecule(page: Path, chrome: Any) -> None:
    from selenium.webdriver import ActionChains

    chrome.get(page.as_uri())
    run: Script = chrome.execute_script
    widths = run("return [...document.images].map((image) => image.naturalWidth)")
    assert len(widths) == len(CAPTIONS) + 1
    assert min(widths) > 600
    assert run("return document.title") == f"ACE-ALA-NME: {HOSTILE}"

    canvas = chrome.find_element("id", "viewer")

    def drawn() -> np.ndarray:
        png = run("return arguments[0].toDataURL().split(',')[1]", canvas)
        return imread(io.BytesIO(base64.b64decode(png)))

    first = drawn()
    assert 0.02 < (first[..., 3] > 0).mean() < 0.6
    ActionChains(chrome).drag_and_drop_by_offset(canvas, 60, 25).perform()
    turned = drawn()
    assert (turned != first).any(-1).mean() > 0.02
    chrome.find_elements("css selector", "[data-conformation]")[1].click()
    assert (drawn() != turned).any(-1).mean() > 0.005

    for width in (1280, 400):
        chrome.set_window_size(width, 900)
        assert run("return document.documentElement.scrollWidth <= window.innerWidth")
    assert chrome.get_log("browser") == []


def test_the_report_says_what_came_out_and_whether_to_believe_it(page: Path) -> None:
    source = page.read_text()
    text = html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", source)))
    for said in (
        "3.91 ± 0.05 kT 95 % interval 3.83 to 4.01",
        "3.84 ± 0.02 kT umbrella sampling, long",
        "Not reliable Only 4 samples < 100 carry the state. What would help: Draw more samples.",
        "5: 2 no molecule, 3 of the wrong chirality; 11 mirror images were inverted",
        "3.3 minutes: simulate 140 s, evaluate 60 s",
        "a machine, 2 logical cores",
        "19 levels (3 of them longer than asked: max_levels lets none be shorter), of whose moves"
        " 71% to 84% were accepted; without it 0.213 of the samples were effective",
    ):
        assert said in text


def test_what_annealing_did_not_do_is_not_said() -> None:
    without = {name: METRICS[name] for name in METRICS.keys() - {"annealing_num_levels"}}
    assert "Annealing" not in dict(diagnostics(without))
    nothing_before = dict(diagnostics(METRICS | {"ess_fraction_one_step": None}))
    assert nothing_before["Annealing"].endswith("71% to 84% were accepted")


def test_a_reference_from_a_trajectory_is_called_so(tmp_path: Path, run: RunResults) -> None:
    settings = SETTINGS | {"reference.trajectory": "equilibrium.xtc"}
    method = reference_method(settings)
    report = RunReport(
        name="mine",
        molecule="ACE-ALA-NME",
        metrics=METRICS | {"delta_f_reference_source": "this run"},
        settings=settings,
        figures=[],
        structures={"conformations": []},
    )
    source = write_run_report(tmp_path / "report.html", report).read_text()
    assert "trajectory, this run" in source
    assert "mbrella sampling" not in source
    names = [text.get_text() for text in _estimates(METRICS, method).axes[0].get_yticklabels()]
    assert names[:2] == ["Umbrella sampling, long", "Trajectory, this run"]
    profile = _profile(replace(run, reference_method=method), (3.9, 0.1))
    legend = [text.get_text() for text in profile.axes[0].get_legend().get_texts()]
    assert "Reference (trajectory)" in legend


def test_an_exact_estimate_that_there_is_not_is_not_drawn() -> None:
    def labels(metrics: dict[str, Any]) -> list[str]:
        (axes,) = _estimates(metrics, "umbrella sampling").axes
        return [label.get_text() for label in axes.get_yticklabels()]

    without = labels(METRICS | {"delta_f_exact_kT": None, "delta_f_exact_stderr_kT": None})
    assert without == [one for one in labels(METRICS) if one != "Exact likelihood alone"]
    assert len(without) == len(labels(METRICS)) - 1


def test_the_report_refers_to_nothing_outside_itself(page: Path) -> None:
    addresses = re.findall(r"(?:src|href)=\"([^\"]*)", page.read_text())
    assert addresses
    assert all(address.startswith("data:") for address in addresses)


class Tags(HTMLParser):
    """Counts the tags of a page and collects its text."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.text = ""
        self.feed(page.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        assert not [name for name, _ in attrs if name.startswith("on")]

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("hostile", [HOSTILE, '"><img src=x onerror=alert(1)>', "{{ 7 * 7 }}<b>"])
def test_names_with_markup_stay_text(tmp_path: Path, page: Path, hostile: str) -> None:
    """Wherever a name, a setting, a reason or a host can come from somebody else."""

    def run_report(word: str) -> Path:
        verdict = {"reliable": False, "reasons": [word], "advice": [word]}
        metrics = METRICS | {"hardware": word, "commit": word, "verdict": verdict}
        metrics |= {"delta_f_reference_source": word, "delta_f_reference_run_reason": word}
        predecessor = {"run": word, "delta_f_error_kT": 0.1, "ess_fraction": 0.1}
        metrics |= {"predecessor": predecessor, "delta_f_error_change_kT": 0.1}
        settings = SETTINGS | {f"target.{word}": word}
        figures = [page.parent / "figures" / "weights.png"]
        report = RunReport(
            name=word,
            molecule=word,
            metrics=metrics | {"versions": {word: word}},
            settings=settings,
            figures=figures,
            structures={"conformations": [{"label": word, "positions_nm": []}], "names": [word]},
        )
        return write_run_report(tmp_path / "run.html", report)

    def fleet_report(word: str) -> Path:
        figure = page.parent / "figures" / "weights.png"
        # The page is named as its folder, in whose name a slash cannot be.
        folder = tmp_path / word.replace("/", "|")
        return write_fleet_report(folder / "fleet.html", {word: METRICS}, {word: word}, figure)

    for write in (run_report, fleet_report):
        tame, found = Tags(write("tame")), Tags(write(hostile))
        assert found.tags == tame.tags
        assert hostile in found.text


def test_a_fleet_links_to_its_members_and_names_failures(tmp_path: Path, page: Path) -> None:
    figure = page.parent / "figures" / "weights.png"
    path = write_fleet_report(
        tmp_path / "report.html", {"ACE-ALA-NME": METRICS}, {"X<Y": "no such residue"}, figure
    )
    source = path.read_text()
    assert '<a href="ACE-ALA-NME/report.html">' in source
    assert re.search(r"3.91 ± 0.05 kT.*3.84 ± 0.02 kT.*not reliable", source, re.DOTALL)
    assert re.search(r"X&lt;Y.*Failed: no such residue", source)
