"""What documents show of the records: ``python docs/tables.py`` writes it in place.

A table stands between ``<!-- table: NAME -->`` and ``<!-- end of table -->``. Its cells are
templates whose fields are dotted paths into a record, ``{planar.lines.2.kl_grid.mean:.4f}``; a
field that begins with a dot goes on from the path of its row. What a command printed stands
between ``<!-- output: NAME -->`` and ``<!-- end of output -->``, and what the first page shares
with the README between ``<!-- readme: first_screen -->`` and ``<!-- end of readme -->``.
"""

import json
import re
import string
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any

ROOT = Path(__file__).parents[1]
RECORDS = ROOT / "benchmarks" / "results"
DOCUMENTS = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
REGION = re.compile(r"<!-- (table|output|readme): (\w+) -->\n.*?<!-- end of \1 -->", re.DOTALL)


COVERED_CASES = {
    "A": "A: log-normal 0.9",
    "B": "B: log-normal 0.9, learned density poor",
    "C": "C: log-normal 1.5",
    "D": "D: log-normal 2.0",
    "E": "E: k = 0.5",
    "F": "F: k = 0.65",
    "G": "G: k = 0.65, learned tails too short",
    "H": "H: log-normal 1.2, learned outliers",
    "small_state": "log-normal 0.9, 200 samples in the state",
    "small_state_tail_05": "k = 0.5, 200 samples",
    "small_state_tail_07": "k = 0.7, 200 samples",
    "small_state_tail_08": "k = 0.8, 200 samples",
    "small_state_tail_09": "k = 0.9, 200 samples",
    "small_state_no_mean": "k = 1.1, 200 samples: no mean, no truth",
    "medium_state": "log-normal 0.9, 1,200 samples in the state",
    "medium_state_tail_09": "k = 0.9, 1,200 samples",
    "one_sided_05": "k = 0.5 in the state",
    "one_sided_07": "k = 0.7 in the state",
    "one_sided_09": "k = 0.9 in the state",
    "one_sided_no_mean": "k = 1.1 in the state: no mean, no truth",
    "rest_09": "k = 0.9 outside the state",
    "both_sides_08": "k = 0.8 on both sides",
    "no_learned_tail": "k = 0.7, none of it learned",
    "no_learned_tail_09": "k = 0.9 in the state, none of it learned",
    "log_normal_22": "log-normal 2.2",
    "rare_conformation": "one in 200 samples is 20 times as heavy",
    "few_samples": "log-normal 0.9, 1,000 samples in all",
    "few_samples_09": "k = 0.9 in the state, 1,000 samples in all",
    "many_samples_09": "k = 0.9 in the state, 40,000 samples in all",
    "all_exact": "log-normal 1.2, every weight exact",
}
"""The cases of ``coverage.json`` in words."""


@cache
def record(name: str) -> Any:
    """Return the content of a record by its file's stem."""
    return json.loads((RECORDS / f"{name}.json").read_text())


def value_of(path: str) -> Any:
    """Return what is at a dotted path, which begins with the record's name."""
    name, *keys = path.split(".")
    value = record(name)
    for key in keys:
        value = value[int(key)] if isinstance(value, list) else value[key]
    return value


class Template(string.Formatter):
    """Fills templates with values of the records.

    Args:
        row: Path that fields with a leading dot go on from.
    """

    def __init__(self, row: str) -> None:
        self.row = row

    def get_field(self, field_name: str, args: Any, kwargs: Any) -> tuple[Any, str]:
        """Return the value that a field of a template names."""
        path = self.row + field_name if field_name.startswith(".") else field_name
        return value_of(path), field_name


def table(header: Sequence[str], rows: Iterable[Sequence[str]], *, row: str = "") -> str:
    """Return a table in Markdown.

    Args:
        header: Headings of the columns.
        rows: Templates, one per cell.
        row: Path that fields with a leading dot go on from.
    """
    fill = Template(row).format
    lines = [header, ["---"] * len(header), *([fill(cell) for cell in cells] for cells in rows)]
    return "\n".join(f"| {' | '.join(line)} |".replace("|  |", "| |") for line in lines)


def row_per_path(columns: dict[str, str], paths: Iterable[str]) -> str:
    """Return a table of one row per path.

    Args:
        columns: Templates by their headings.
        paths: What the templates' fields go on from.
    """
    filled = ([Template(path).format(cell) for cell in columns.values()] for path in paths)
    return table(list(columns), filled)


def row_per_name(heading: str, columns: dict[str, str], path: str) -> str:
    """Return a table of one row per key of what is at a path, which stands in the first column.

    Args:
        heading: Of the first column.
        columns: Templates of the others by their headings.
        path: Of a dictionary in a record.
    """
    rows = [
        [name, *(Template(f"{path}.{name}").format(cell) for cell in columns.values())]
        for name in value_of(path)
    ]
    return table([heading, *columns], rows)


def alanine_dipeptide() -> str:
    """Return the seeds of the main job."""
    columns = {
        "seed": "{.seed}",
        "Δf (kT)": "{.delta_f_kT:.2f} +- {.delta_f_stderr_kT:.2f}",
        "95 % interval": "{.delta_f_interval_kT.0:.2f} to {.delta_f_interval_kT.1:.2f}",
        "learned alone": "{.delta_f_learned_kT:.2f} +- {.delta_f_learned_stderr_kT:.2f}",
        "without annealing": "{.delta_f_one_step_kT:.2f} +- {.delta_f_one_step_stderr_kT:.2f}",
        "exact alone": "{.delta_f_exact_kT:.2f} +- {.delta_f_exact_stderr_kT:.2f}",
        "with MD frames": "{.delta_f_bennett_kT:.2f} +- {.delta_f_bennett_stderr_kT:.2f}",
        "ESS fraction": "{.ess_fraction:.2f}",
        "without annealing (ESS)": "{.ess_fraction_one_step:.2f}",
        "Pareto k": "{.pareto_k:.2f}",
    }
    runs = range(len(value_of("alanine_dipeptide.runs")))
    return row_per_path(columns, [f"alanine_dipeptide.runs.{index}" for index in runs])


def coverage() -> str:
    """Return how often intervals hold the truth, and what the verdict says of them."""
    columns = {
        "intervals that hold the truth": "{.coverage:.3f}",
        "called reliable": "{.share_reliable:.2f}",
        "of those, hold the truth": "{.coverage_reliable:.3f}",
        "reliable and wrong": "{.share_reliable_and_wrong:.3f}",
        "half width (kT)": "{.half_width_kT:.2f}",
    }

    def cell(name: str, template: str) -> str:
        has_truth = value_of(f"coverage.cases.{name}.rmse_kT") is not None
        if not has_truth and "coverage" in template:
            return "-"
        return Template(f"coverage.cases.{name}").format(template)

    rows = [
        [text, *(cell(name, template) for template in columns.values())]
        for name, text in COVERED_CASES.items()
    ]
    return table(["tails of the weights", *columns], rows)


def dipeptides() -> str:
    """Return the molecules of the fleet."""
    reference = "{.delta_f_reference_run_kT:.2f} +- {.delta_f_reference_run_stderr_kT:.2f}"
    columns = {
        "Δf (kT)": "{.delta_f_kT:.2f} +- {.delta_f_stderr_kT:.2f}",
        "95 % interval": "{.delta_f_interval_kT.0:.2f} to {.delta_f_interval_kT.1:.2f}",
        "reference (kT)": reference,
        "learned alone (kT)": "{.delta_f_learned_kT:.2f} +- {.delta_f_learned_stderr_kT:.2f}",
        "published MD (kT)": "{.published_md_delta_f_kT:.2f}",
        "published error, exact (kT)": "{.published_exact_error_kT:.2f}",
        "energy W2 (kT)": "{.energy_w2_kT:.2f}",
        "torsion W2 (rad)": "{.torsion_w2_rad:.2f}",
        "ESS fraction": "{.ess_fraction:.2f}",
        "without annealing": "{.ess_fraction_one_step:.3f}",
        "Pareto k": "{.pareto_k:.2f}",
    }
    return row_per_name("molecule", columns, "dipeptides.molecules")


def zero_shot() -> str:
    """Return the molecules that nobody simulated."""
    columns = {
        "Δf (kT)": "{.delta_f_kT:.2f} +- {.delta_f_stderr_kT:.2f}",
        "95 % interval": "{.delta_f_interval_kT.0:.2f} to {.delta_f_interval_kT.1:.2f}",
        "learned alone (kT)": "{.delta_f_learned_kT:.2f} +- {.delta_f_learned_stderr_kT:.2f}",
        "reference (kT)": "{.delta_f_reference_kT:.2f} +- {.delta_f_reference_stderr_kT:.2f}",
        "published MD (kT)": "{.published_md_delta_f_kT:.2f}",
        "energy W2 (kT)": "{.energy_w2_kT:.2f}",
        "ESS fraction": "{.ess_fraction:.3f}",
        "without annealing": "{.ess_fraction_one_step:.4f}",
        "Pareto k": "{.pareto_k:.2f}",
    }
    molecules = value_of("zero_shot.molecules")
    rows = [
        [
            name,
            *(Template(f"zero_shot.molecules.{name}").format(c) for c in columns.values()),
            "reliable" if one["reliable"] else "unreliable",
        ]
        for name, one in molecules.items()
    ]
    return table(["molecule", *columns, "verdict"], rows)


def zero_shot_densities() -> str:
    """Return what becomes of the same question by three learned densities."""
    columns = {
        "molecule": "{name}",
        "reference (kT)": "{{zero_shot.molecules.{name}.delta_f_reference_kT:.2f}}",
    }
    for title, path in (
        ("its own", "zero_shot.molecules.{name}"),
        ("shared", "zero_shot_shared.molecules.{name}"),
        ("fine-tuned", "zero_shot_tuned.fine_tuned.molecules.{name}"),
    ):
        columns |= {
            f"learned alone, {title} (kT)": f"{{{{{path}.delta_f_learned_kT:.2f}}}}",
            f"scatter, {title} (kT)": f"{{{{{path}.log_density_error_sd_kT:.1f}}}}",
            f"ESS fraction, {title}": f"{{{{{path}.ess_fraction:.2f}}}}",
            f"without annealing, {title}": f"{{{{{path}.ess_fraction_one_step:.4f}}}}",
        }
    rows = [
        [cell.format(name=name) for cell in columns.values()]
        for name in value_of("zero_shot_shared.molecules")
    ]
    return table(list(columns), rows)


def zero_shot_ablation() -> str:
    """Return what fields of other trainings give to frames that none of them has seen."""
    columns = {
        "teachers": "{.num_teachers:d}",
        "whitened together by": "{.blocks}",
        "steps": "{.num_steps:,d}",
        "nats more than the first": "{.nats_more_than_40:.1f} +- {.nats_more_than_40_stderr:.1f}",
    }
    order = ("40", "40_coordinate", "20", "10", "40_longer", "committed")
    return row_per_path(columns, [f"zero_shot_ablation.fields.{name}" for name in order])


def like_for_like() -> str:
    """Return mean errors beside published ones, of the same densities to the same reference."""
    molecules = value_of("dipeptides.molecules").values()

    def error(name: str) -> str:
        errors = [abs(one[name] - one["published_md_delta_f_kT"]) for one in molecules]
        return f"{fmean(errors):.2f}"

    exact = fmean(one["published_exact_error_kT"] for one in molecules)
    rows = [
        (
            "learned alone",
            error("delta_f_learned_kT"),
            "{dipeptides.published_learned.error_kT:.2f}",
        ),
        ("exact alone", error("delta_f_exact_kT"), f"{exact:.2f}"),
        ("learned, corrected by exact ones", error("delta_f_kT"), "-"),
    ]
    return table(("densities", "ours (kT)", "published (kT)"), rows)


def pretrained() -> str:
    """Return the free energies of the pretrained field by several routes."""
    annealed = "annealed, learned density corrected by {.log_density_num_samples:,} exact ones"
    routes = {
        "the authors' umbrella sampling": ("reference_", None, None),
        annealed: ("", "{.ess_fraction:.3f}", "verdict"),
        "annealed, learned density alone": ("learned_", "{.ess_fraction_learned:.3f}", None),
        "one step, learned density corrected": (
            "one_step_", "{.ess_fraction_one_step:.4f}", "verdict_one_step",
        ),
        "one step, learned density alone": (
            "learned_one_step_", "{.ess_fraction_learned_one_step:.4f}", None,
        ),
        "one step, exact likelihoods alone": (
            "exact_one_step_", "{.ess_fraction_exact_one_step:.4f}", None,
        ),
        "the field's samples, unweighted": ("unweighted_", None, None),
    }  # fmt: skip
    rows = []
    for route, (name, share, verdict) in routes.items():
        value = f"{{.delta_f_{name}kT:.2f}} +- {{.delta_f_{name}stderr_kT:.2f}}"
        judged = "-"
        if verdict is not None:
            reliable = value_of(f"pretrained_adp_xtb.{verdict}.reliable")
            judged = "reliable" if reliable else "unreliable"
        rows.append([route, value, share or "-", judged])
    published = {"boltznce": "BoltzNCE", "ecnf_exact": "exact, ECNF", "gvp_exact": "exact, GVP"}
    for key, name in published.items():
        path = f".published.{key}"
        value = f"{{{path}.delta_f_kT:.2f}} +- {{{path}.stderr_kT:.2f}}"
        rows.append([f"published: {name}", value, "-", "-"])
    return table(("Δf by", "kT", "ESS fraction", "verdict"), rows, row="pretrained_adp_xtb")


def oligopeptides() -> str:
    """Return the chains of several residues beside what is published of their kind."""
    columns = {
        "Δf (kT)": "{.delta_f_kT:.2f} +- {.delta_f_stderr_kT:.2f}",
        "95 % interval": "{.delta_f_interval_kT.0:.2f} to {.delta_f_interval_kT.1:.2f}",
        "reference (kT)": (
            "{.delta_f_reference_run_kT:.2f} +- {.delta_f_reference_run_stderr_kT:.2f}"
        ),
        "ESS fraction": "{.ess_fraction:.2f}",
        "learned alone": "{.ess_fraction_learned:.2f}",
        "without annealing": "{.ess_fraction_one_step:.3f}",
        "energy W2 (kT)": "{.energy_w2_kT:.2f} ({.energy_w2_baseline_kT:.2f})",
        "torsion W2 (rad)": "{.torsion_w2_all_rad:.2f} ({.torsion_w2_all_baseline_rad:.2f})",
        "core-hours": "{.core_hours:.1f}",
    }
    return row_per_name("chain", columns, "oligopeptides.chains")


def oligopeptide_torsions() -> str:
    """Return the free energy of every phi being positive."""
    rows = []
    for name in value_of("oligopeptides.chains"):
        for number, phi in enumerate(value_of(f"oligopeptides.chains.{name}.phis")):
            cells = Template(f"oligopeptides.chains.{name}.phis.{number}")
            rows.append([
                name,
                str(phi["name"]),
                cells.format("{.delta_f_kT:.2f} +- {.delta_f_stderr_kT:.2f}"),
                cells.format("{.reference_kT:.2f} +- {.reference_stderr_kT:.2f}"),
            ])  # fmt: skip
    return table(("chain", "torsion", "Δf (kT)", "reference (kT)"), rows)


def oligopeptides_published() -> str:
    """Return what other samplers of alanine chains reach."""
    rows = [
        [method, chain, str(found["ess_fraction"]), str(found.get("energy_w2", "-"))]
        for method, chains in value_of("oligopeptides.published").items()
        for chain, found in chains.items()
    ]
    return table(("method", "chain", "ESS fraction", "energy W2"), rows)


def zero_shot_lengths() -> str:
    """Return how far the zero-shot field carries beyond the lengths it learned from."""
    columns = {
        "residues": "{.num_residues:d}",
        "ESS fraction": "{.ess_fraction:.3f}",
        "without annealing": "{.ess_fraction_one_step:.4f}",
        "Δf, learned alone (kT)": "{.delta_f_kT:.2f} +- {.delta_f_stderr_kT:.2f}",
    }
    return row_per_name("chain", columns, "zero_shot_lengths.chains")


_SYSTEMS = {
    "gaussians8": "eight Gaussians",
    "checkerboard": "checkerboard",
    "two_moons": "two moons",
    "rings": "rings",
}
_OBJECTIVES = {"infonce": "InfoNCE alone", "score": "score alone", "hybrid": "hybrid"}
_RECIPES = {"ours": "ours", "paper-reduced": "published recipe, reduced"}


def _planar_lines(system: str, recipe: str) -> list[str]:
    """Return the paths of a system's lines in the order of the objectives, if there are any."""
    lines = {
        line["objective"]: f"planar.lines.{index}"
        for index, line in enumerate(value_of("planar.lines"))
        if (line["system"], line["recipe"]) == (system, recipe)
    }
    return [lines[objective] for objective in _OBJECTIVES if objective in lines]


def planar() -> str:
    """Return the divergences of our recipe."""
    rows = []
    for system, label in _SYSTEMS.items():
        infonce, score, hybrid = _planar_lines(system, "ours")
        cells = f"{{{infonce}.kl_grid.mean:.2f}}", f"{{{score}.kl_grid.mean:.2f}}"
        rows.append((label, *cells, f"{{{hybrid}.kl_grid.mean:.4f}}"))
    return table(("system", *_OBJECTIVES.values()), rows)


def planar_recipes() -> str:
    """Return published divergences beside ours and those of the published recipe, reduced."""
    rows = []
    for system, label in _SYSTEMS.items():
        published = [value_of(f"{path}.published") for path in _planar_lines(system, "ours")]
        if any(published):
            cells = ("-" if value is None else f"{value:.4f}" for value in published)
            rows.append((f"{label}, published", *cells, ""))
        for recipe, name in _RECIPES.items():
            paths = _planar_lines(system, recipe)
            if paths:
                seconds = " / ".join(f"{{{path}.cpu_seconds.mean:.0f}}" for path in paths)
                rows.append((f"{label}, {name}", *map(_mean_and_spread, paths), seconds))
    return table(("forward KL (nats)", *_OBJECTIVES.values(), "CPU-seconds"), rows)


def _mean_and_spread(path: str) -> str:
    """Return the template of a divergence; one seed has no spread."""
    form = ".4f" if value_of(f"{path}.kl_grid.mean") < 0.1 else ".3f"
    spread = f" +- {{{path}.kl_grid.sd:{form}}}" if "sd" in value_of(f"{path}.kl_grid") else ""
    return f"{{{path}.kl_grid.mean:{form}}}{spread}"


def speed() -> str:
    """Return what was measured of force field, networks, faults and the command line."""
    rows = [
        ("force field, energies with forces per CPU-second, batches of 256: OpenMM's dynamics",
         "{force_field.openmm_cpu_dynamics.median:,.0f}", "force_field"),
        ("the same, ours in 64 bits, compiled",
         "{force_field.compiled_float64.median:,.0f}", "force_field"),
        ("the same, ours in 32 bits, not compiled",
         "{force_field.eager_float32.median:,.0f}", "force_field"),
        ("with GBn2 water: one by one in OpenMM; ours in 64 bits, compiled",
         "{force_field.others.gbn2.openmm_cpu_loop.median:,.0f}; "
         "{force_field.others.gbn2.compiled_float64.median:,.0f}", "force_field"),
        ("with maps of the backbone, no water: one by one in OpenMM; ours in 64 bits, compiled",
         "{force_field.others.cmap.openmm_cpu_loop.median:,.0f}; "
         "{force_field.others.cmap.compiled_float64.median:,.0f}", "force_field"),
        ("equivariant network (GVP), training, molecules per CPU-second: edge lists",
         "{gvp.edge_list_training.median:,.0f}", "gvp"),
        ("the same, dense", "{gvp.dense_training.median:,.0f}", "gvp"),
        ("served model, one request of 100 conformations, median",
         "{serving.latency_ms.median:.0f} ms", "serving"),
        ("the same, of 100 requests at once: answered",
         "{serving.concurrent_answered}, in {serving.concurrent_total_s:.1f} s", "serving"),
        ("a training on two workers goes on after one was killed (s)",
         "{faults.worker.recovered_after_seconds:.0f}", "faults"),
        ("the same after the death of a node, with a spare one (s)",
         "{faults.nodes.spare.recovered_after_seconds:.0f}", "faults"),
        ("the same with fewer workers, elastic (s)",
         "{faults.nodes.elastic.recovered_after_seconds:.0f}", "faults"),
        ("shards that 200 asked for came to, with an actor killed every 5 s",
         "{faults.actors.num_distinct}", "faults"),
        ("`bnce --help` (s)", "{first_samples.help.median:.2f}", "first_samples"),
        ("1,000 samples of the shipped model, from the command line (s)",
         "{first_samples.sample_1000.median:.1f}", "first_samples"),
    ]  # fmt: skip
    named = ((what, measured, f"`{name}.json`") for what, measured, name in rows)
    return table(("what", "measured", "record"), named)


def scaling_measured() -> str:
    """Return throughputs on one and two workers."""
    trainings = {
        "emulator (flow matching)": "flow",
        "energy model (score matching and InfoNCE)": "energy",
    }
    pools = {
        "generation, a pool of actors": "generation",
        "energies, a pool of actors": "energies",
    }
    ways = (
        ("without_ray", "strong_1", "strong_2", "weak_2"),
        ("without_ray", "actors_1", "actors_2"),
    )
    rows = []
    for label, name in trainings.items():
        rows.append((label, *(f"{{scaling.{name}.{way}.median:,.0f}}" for way in ways[0])))
    for label, name in pools.items():
        alone, one, two = (f"{{scaling.{name}.{way}.median:,.0f}}" for way in ways[1])
        rows.append((label, alone, one, "", two))
    same = ("2 workers, same global batch", "2 workers, same batch each")
    return table(("", "without Ray", "1 worker", *same), rows)


_TRAININGS = {"flow": "emulator", "energy": "energy model"}
_STEPS = {
    "one": "1 worker",
    "strong_two": "2 workers, same global batch",
    "weak_two": "2 workers, same batch each",
}


def scaling_predicted() -> str:
    """Return the step's time by the model and by the clock."""
    columns = {
        "predicted (ms)": "{.predicted_ms:.1f}",
        "measured (ms)": "{.measured_ms:.1f}",
        "difference (%)": "{.difference_percent:+.1f}",
    }
    rows = []
    for stage, label in _TRAININGS.items():
        for step, way in _STEPS.items():
            fill = Template(f"step_model.{stage}.checked.{step}").format
            rows.append((f"{label}, {way}", *(fill(cell) for cell in columns.values())))
    return table(("step", *columns), rows)


_PARTS = {
    "computing": "computing",
    "drawing": "drawing",
    "updating": "updating",
    "ray": "Ray",
    "waiting": "waiting for the slowest",
    "bandwidth": "sum, bandwidth",
    "latency": "sum, latency",
}


def scaling_projected() -> str:
    """Return the efficiencies that the model of the step projects, and what limits them."""
    rows = []
    for number in value_of("step_model.flow.projected"):
        paths = {stage: f"step_model.{stage}.projected.{number}" for stage in _TRAININGS}
        cells = (f"{{{path}.efficiency:.2f}}" for path in paths.values())
        busy = f"{{{paths['energy']}.busy_fraction:.2f}}"
        rows.append((number, *cells, busy, _PARTS[value_of(f"{paths['energy']}.limit")]))
    header = ("GPUs", "emulator", "energy model", "busy computing it", "most of the rest of a step")
    return table(header, rows)


def scaling_parts() -> str:
    """Return what a step of the energy model consists of [ms]."""
    rows = [
        (number, *(f"{{step_model.energy.projected.{number}.parts_ms.{part}:.1f}}"
                   for part in _PARTS))
        for number in value_of("step_model.energy.projected")
    ]  # fmt: skip
    return table(("GPUs", *_PARTS.values()), rows)


def scaling_changed() -> str:
    """Return what would change the projection."""
    changes = {
        "nothing": "as above",
        "alike": "steps of all ranks last alike",
        "tree": "messages along a tree instead of a ring",
        "larger_batch": "five times the samples per GPU",
        "no_host_work": "the host's work behind the GPU's: no drawing, updating, Ray",
        "overlap": "a sum that overlaps as DDP's buckets allow",
    }
    rows = []
    for name, label in changes.items():
        path = f"step_model.energy.changed.{name}"
        rows.append((label, f"{{{path}.efficiency:.2f}}", f"{{{path}.busy_fraction:.2f}}"))
    return table(("512 GPUs, energy model", "efficiency", "busy computing"), rows)


TABLES: dict[str, Callable[[], str]] = {
    function.__name__: function
    for function in (
        alanine_dipeptide,
        coverage,
        dipeptides,
        zero_shot,
        zero_shot_densities,
        zero_shot_ablation,
        like_for_like,
        pretrained,
        oligopeptides,
        oligopeptide_torsions,
        oligopeptides_published,
        zero_shot_lengths,
        planar,
        planar_recipes,
        speed,
        scaling_measured,
        scaling_predicted,
        scaling_projected,
        scaling_parts,
        scaling_changed,
    )
}
"""By the name that documents use."""


def output(name: str) -> str:
    """Return what a command printed."""
    return "\n".join(["```", *value_of(f"commands.commands.{name}.output"), "```"])


def first_screen() -> str:
    """Return the README up to its first section, as a page in ``docs`` has it."""
    text = (ROOT / "README.md").read_text()
    return text[: text.index("\n## ")].replace("](docs/", "](").strip()


def with_records(document: str) -> str:
    """Return a document with its tables and outputs made anew."""

    def region(found: re.Match[str]) -> str:
        kind, name = found.groups()
        if kind == "table":
            content = TABLES[name]()
        else:
            content = output(name) if kind == "output" else first_screen()
        return f"<!-- {kind}: {name} -->\n{content}\n<!-- end of {kind} -->"

    return REGION.sub(region, document)


if __name__ == "__main__":
    for path in DOCUMENTS:
        path.write_text(with_records(path.read_text()))
