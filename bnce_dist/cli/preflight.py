"""The command line of the preflight: a table, and one line per problem."""

import json
from pathlib import Path
from typing import Annotated

import typer

from bnce_dist.cli.common import USER_ERROR, absolute_output, errors_as_one_line, place
from bnce_dist.config.load import load_config
from bnce_dist.generator.target import Target
from bnce_dist.pipeline.config import Config
from bnce_dist.pipeline.plan import Plan, space_of_run
from bnce_dist.runs.transferable.run import with_given_field

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command(epilog="Example: bnce preflight --output /shared/runs")
def preflight(
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Settings of the run, as for jobs/train.py."),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file of the run.", parser=place)] = None,
    output: Annotated[
        Path,
        typer.Option(help="Folder of the runs' folders, on storage all nodes share.", parser=place),
    ] = Path("runs"),
    transferable: Annotated[
        bool, typer.Option("--transferable", help="The run is one of one field for many molecules.")
    ] = False,
    nodes: Annotated[int, typer.Option(min=1, help="Nodes that must have joined.")] = 1,
    wait: Annotated[
        float, typer.Option(min=0, help="Seconds to wait for them, and for the workers.")
    ] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Check every node of the cluster in RAY_ADDRESS before a run, in seconds.

    Versions, GPUs, storage written from each node and read back on the others, disks, sizes.
    """
    # Ray takes seconds to import, which --help should not wait for.
    from bnce_dist.distributed import cluster
    from bnce_dist.distributed.preflight import preflight as check

    with errors_as_one_line():
        resolved = load_config(Config, config, overrides or [])
        if transferable:
            resolved = with_given_field(resolved)
        target = Target.from_config(resolved.target)
        space = space_of_run(resolved, target.molecule, is_transferable=transferable)
        plan = Plan.of(resolved, target, space)
        cluster.wait_for_nodes(nodes, wait)
        if resolved.cluster.num_workers:
            cluster.call_for_workers(
                resolved.cluster.num_workers,
                wait,
                resolved.cluster,
                gpus=resolved.cluster.require_gpus,
            )
        report = check(resolved, absolute_output(output), plan)
    typer.echo(json.dumps(report.as_dict(), indent=2) if as_json else report.table())
    for problem in report.problems:
        typer.echo(f"error: {problem}", err=True)
    if report.problems:
        raise typer.Exit(USER_ERROR)
