"""Tables of molecules that nobody simulated."""

from table_text import Template, row_per_name, row_per_path, table, value_of


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


def zero_shot_lengths() -> str:
    """Return how far the zero-shot field carries beyond the lengths it learned from."""
    columns = {
        "residues": "{.num_residues:d}",
        "ESS fraction": "{.ess_fraction:.3f}",
        "without annealing": "{.ess_fraction_one_step:.4f}",
        "Δf, learned alone (kT)": "{.delta_f_kT:.2f} +- {.delta_f_stderr_kT:.2f}",
    }
    return row_per_name("chain", columns, "zero_shot_lengths.chains")
