"""Tables of molecules that were simulated, longer chains, and a pretrained field."""

from statistics import fmean

from table_text import Template, row_per_name, row_per_path, table, value_of


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
        "energy W2 (kT)": "{.energy_w2_kT:.2f} ({.energy_w2_baseline_kT:.2f})",
        "torsion W2 (rad)": "{.torsion_w2_rad:.2f}",
        "ESS fraction": "{.ess_fraction:.2f}",
        "learned alone": "{.ess_fraction_learned:.2f}",
        "exact alone": "{.ess_fraction_exact:.2f}",
        "without annealing": "{.ess_fraction_one_step:.3f}",
        "Pareto k": "{.pareto_k:.2f}",
    }
    return row_per_name("molecule", columns, "dipeptides.molecules")


def exact_choice() -> str:
    """Return errors by which samples get an exact density."""
    rows = []
    for name, run in value_of("exact_choice.runs").items():
        for number in run["rmse_kT"]:
            cells = Template(f"exact_choice.runs.{name}.rmse_kT.{number}")
            ways = ("{.at_random:.2f}", "{.heaviest:.2f}", "{.by_weight:.2f}")
            rows.append([name, f"{int(number):,}", *(cells.format(way) for way in ways)])
    header = ("molecule", "exact densities", "at random (kT)", "a fifth to the heaviest (kT)",
              "half by weight (kT)")  # fmt: skip
    return table(header, rows)


def emulator_width() -> str:
    """Return finished runs with emulators of two widths."""
    columns = {
        "molecule": "{.molecule}",
        "features": "{.width}",
        "steps": "{.num_steps:,}",
        "training (s)": "{.train_seconds:.0f}",
        "an exact density (CPU-s)": "{.exact_cpu_seconds_per_sample:.3f}",
        "learned from exact, sd (kT)": "{.log_density_error_sd_kT:.2f}",
        "ESS, learned alone": "{.ess_fraction_learned:.2f}",
        "Δf (kT)": "{.delta_f_kT:.2f} +- {.delta_f_stderr_kT:.2f}",
        "reference (kT)": "{.delta_f_reference_run_kT:.2f}",
    }
    runs = range(len(value_of("emulator_width.runs")))
    return row_per_path(columns, [f"emulator_width.runs.{index}" for index in runs])


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
    learned = "energy W2, learned alone"
    columns = {
        "Δf (kT)": "{.delta_f_kT:.2f} +- {.delta_f_stderr_kT:.2f}",
        "95 % interval": "{.delta_f_interval_kT.0:.2f} to {.delta_f_interval_kT.1:.2f}",
        "reference (kT)": (
            "{.delta_f_reference_run_kT:.2f} +- {.delta_f_reference_run_stderr_kT:.2f}"
        ),
        "ESS fraction": "{.ess_fraction:.2f}",
        "learned alone": "{.ess_fraction_learned:.2f}",
        "exact alone": "{.ess_fraction_exact:.2f}",
        "without annealing": "{.ess_fraction_one_step:.3f}",
        "energy W2 (kT)": "{.energy_w2_kT:.2f} ({.energy_w2_baseline_kT:.2f})",
        learned: "{.energy_w2_learned_kT:.2f}",
        "torsion W2 (rad)": "{.torsion_w2_all_rad:.2f} ({.torsion_w2_all_baseline_rad:.2f})",
        "core-hours": "{.core_hours:.1f}",
    }
    rows = []
    for name, chain in value_of("oligopeptides.chains").items():
        fill = Template(f"oligopeptides.chains.{name}").format
        # The oldest run's is not known.
        known = columns if "energy_w2_learned_kT" in chain else columns | {learned: "-"}
        rows.append([name, *(fill(cell) for cell in known.values())])
    return table(["chain", *columns], rows)


def oligopeptide_torsions() -> str:
    """Return the free energy of every phi being positive."""
    rows = []
    for name in value_of("oligopeptides.chains"):
        for number, phi in enumerate(value_of(f"oligopeptides.chains.{name}.phis")):
            cells = Template(f"oligopeptides.chains.{name}.phis.{number}")
            columns = {
                "delta_f_kT": "{.delta_f_kT:.2f} +- {.delta_f_stderr_kT:.2f}",
                "reference_kT": "{.reference_kT:.2f} +- {.reference_stderr_kT:.2f}",
                "own_windows": "{.own_windows.delta_f_kT:.2f} +- {.own_windows.stderr_kT:.2f}",
            }
            found = [cells.format(text) if key in phi else "-" for key, text in columns.items()]
            rows.append([name, str(phi["name"]), *found])
    header = ("chain", "torsion", "Δf (kT)", "reference (kT)", "windows of its own (kT)")
    return table(header, rows)


def oligopeptides_published() -> str:
    """Return what other samplers of alanine chains reach."""
    rows = [
        [method, chain, str(found["ess_fraction"]), str(found.get("energy_w2", "-"))]
        for method, chains in value_of("oligopeptides.published").items()
        for chain, found in chains.items()
    ]
    return table(("method", "chain", "ESS fraction", "energy W2"), rows)
