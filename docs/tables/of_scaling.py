"""Tables of one and two workers, and of many by the model of the step."""

from table_text import Template, table, value_of


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
