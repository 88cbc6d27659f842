"""Tables of error bars, planar systems and speed."""

from table_text import Template, table, value_of

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
