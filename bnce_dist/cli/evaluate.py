"""The command line that estimates a model's free energy."""

import json
from typing import Annotated, Any

import typer

from bnce_dist.cli.common import UNRELIABLE, errors_as_one_line
from bnce_dist.cli.model import (
    Annealing,
    Device,
    Model,
    Potential,
    Sequence,
    Temperature,
    aimed,
    as_asked,
    load_model,
)
from bnce_dist.generator.annealing import AnnealingConfig
from bnce_dist.generator.boltzmann_generator import BoltzmannGenerator
from bnce_dist.generator.target import Target
from bnce_dist.generator.verdict import Verdict

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command(epilog="Example: bnce evaluate --sequence ACE-ALA-NME -n 2000 --json")
def evaluate(
    sequence: Sequence = None,
    model: Model = None,
    num_samples: Annotated[
        int, typer.Option("--num-samples", "-n", min=100, help="Samples to draw and weight.")
    ] = 10_000,
    num_exact: Annotated[
        int,
        typer.Option(
            min=0,
            help="How many of them get an exact density, which corrects the model: half at random.",
        ),
    ] = 0,
    seed: Annotated[int, typer.Option(help="Of the noise.")] = 0,
    anneal: Annealing = None,
    temperature_kelvin: Temperature = None,
    to: Potential = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with code 3 if the estimate is unreliable.")
    ] = False,
    device: Device = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON.")] = False,
) -> None:
    """Estimate a trained model's free energy, and judge the estimate.

    Fresh samples are weighted by the energy model. Its own error is what the run measured by exact
    densities, or is measured anew with --num-exact; without either no estimate is called reliable.
    At another temperature or potential it was never measured.
    """
    with errors_as_one_line():
        generator = load_model(sequence, model, device)
        record = evaluation_record(
            generator,
            num_samples,
            seed,
            num_exact,
            annealing=as_asked(generator, anneal),
            target=aimed(generator.target, to, temperature_kelvin),
        )
    typer.echo(json.dumps(record) if as_json else _table(record))
    if strict and not record["verdict"]["reliable"]:
        raise typer.Exit(UNRELIABLE)


def evaluation_record(
    generator: BoltzmannGenerator,
    num_samples: int,
    seed: int,
    num_exact: int = 0,
    *,
    annealing: AnnealingConfig | None = None,
    target: Target | None = None,
) -> dict[str, Any]:
    """Return the free energy by fresh samples with its diagnostics, as plain JSON.

    Where no sample has any weight, there is no free energy: it is None. The long reference is of
    the model's own target.

    Raises: InputError: as `BoltzmannGenerator.sample`, or no sample on one side of the state.
    """
    ensemble = generator.sample(
        num_samples, seed, num_exact=num_exact, annealing=annealing, target=target
    )
    estimate = ensemble.delta_f(seed=seed) if ensemble.has_weight else None
    diagnostics = ensemble.diagnostics()
    reference = None
    if target is None:
        reference = generator.target.long_reference(generator.target_config)
    record = {
        "molecule": generator.molecule.name,
        "seed": seed,
        "delta_f_kT": estimate.value_kT if estimate else None,
        "delta_f_stderr_kT": estimate.stderr_kT if estimate else None,
        "delta_f_interval_kT": list(estimate.interval_kT) if estimate else None,
        "delta_f_reference_kT": reference.delta_f_kT if reference else None,
        "delta_f_reference_stderr_kT": reference.stderr_kT if reference else None,
        **diagnostics,
        "num_levels": ensemble.num_levels or None,
    }
    return record | {"verdict": ensemble.judged(record).as_record()}


def _table(record: dict[str, Any]) -> str:
    rows = _estimates(record) if record["delta_f_kT"] is not None else {}
    rows["verdict"] = "\n".join(Verdict.from_record(record["verdict"]).lines())
    return "\n".join(f"{name:<20} {text}" for name, text in rows.items())


def _estimates(record: dict[str, Any]) -> dict[str, str]:
    low, high = record["delta_f_interval_kT"]
    error = record["model_error_kT"]
    rows = {
        "delta_f": f"{record['delta_f_kT']:.2f} +- {record['delta_f_stderr_kT']:.2f} kT, "
        f"95 % interval [{low:.2f}, {high:.2f}]",
        "error": "sampling error only, model error not included"
        if error is None
        else f"of sampling and of the model's correction ({error:.2f} kT)",
    }
    if record["delta_f_reference_kT"] is not None:
        rows["reference"] = (
            f"{record['delta_f_reference_kT']:.2f} +- "
            f"{record['delta_f_reference_stderr_kT']:.2f} kT"
        )
    if record["num_levels"]:
        rows["annealing"] = f"{record['num_levels']} levels"
    return rows | {
        "effective samples": f"{record['ess_fraction']:.3f} of {record['ess_num_samples']}",
        "Pareto k": f"{record['pareto_k']:.2f} (no mean from 1 on)",
    }
