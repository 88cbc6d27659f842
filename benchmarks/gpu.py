"""What one GPU does: simulation, sampling, annealing and training, beside limits and the CPU.

For a machine with a GPU, torch and the package's core dependencies, with or without OpenMM, MDTraj,
Ray and MLflow. Every measurement is one JSON line, flushed at once, most important first, so that
a run that is cut short leaves what it has measured. On a GPU every part has a process of its own:
one that fails or hangs does not take the others with it.

    PYTHONPATH=. python benchmarks/gpu.py --output gpu.jsonl
    PYTHONPATH=. python benchmarks/gpu.py --parts langevin,training --seconds 30
    PYTHONPATH=. python benchmarks/gpu.py --device cpu --tiny     # only whether everything runs
    python benchmarks/gpu.py --collect gpu.jsonl --write          # the record, on any machine
    python benchmarks/gpu.py --make-inputs                        # gpu_inputs.pt, with OpenMM
"""

import argparse
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import gpu_inputs
import torch
from gpu_sampling import annealing, exact, samples
from gpu_simulation import langevin, umbrella
from gpu_timing import Bench, Row, described, machine
from gpu_training import cartesian, memory, training
from gpu_whole import whole

from bnce_dist.core.device import device_from_name
from bnce_dist.core.errors import InputError

Part = Callable[[Bench, gpu_inputs.Inputs], Iterator[Row]]
PARTS: dict[str, Part] = {
    "langevin": langevin,
    "training": training,
    "samples": samples,
    "annealing": annealing,
    "exact": exact,
    "umbrella": umbrella,
    "whole": whole,
    "cartesian": cartesian,
    "memory": memory,
}
"""Most important first."""
GRACE_SECONDS = 60.0
"""What a part may take beyond its time, for a case that was begun, before it is ended."""


def main() -> None:
    """Do what the command line says."""
    options = arguments()
    if options.list:
        print(*(f"{name}: {part.__doc__}" for name, part in PARTS.items()), sep="\n")
    elif options.make_inputs:
        gpu_inputs.make()
    elif options.collect:
        collect(options.collect, write=options.write)
    else:
        device = device_from_name(options.device)
        for name in chosen(options.parts):
            elsewhere = device.type == "cuda" and not options.here
            for row in in_a_process(name, options) if elsewhere else here(name, device, options):
                tell({"part": name, **row}, options.output)


def arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cuda", help="cpu, cuda or cuda:N")
    parser.add_argument("--parts", default=",".join(PARTS), help="names with commas")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each part")
    parser.add_argument("--tiny", action="store_true", help="only see whether everything runs")
    parser.add_argument("--here", action="store_true", help="all parts in this process")
    parser.add_argument("--output", type=Path, help="file that the lines are appended to")
    parser.add_argument("--list", action="store_true", help="say what parts there are")
    parser.add_argument("--collect", type=Path, help="make the record of such a file")
    parser.add_argument("--write", action="store_true", help="also write the record")
    parser.add_argument("--make-inputs", action="store_true", help="write gpu_inputs.pt anew")
    return parser.parse_args()


def chosen(names: str) -> list[str]:
    """Return the parts that are named, in their own order.

    Raises: InputError: an unknown one.
    """
    asked = names.split(",")
    for name in asked:
        if name not in PARTS:
            raise InputError.unknown("--parts", name, PARTS)
    return [name for name in PARTS if name in asked]


def here(name: str, device: torch.device, options: argparse.Namespace) -> Iterator[Row]:
    """Yield the rows of a part, and its error if it fails."""
    yield {"machine": machine(device), "tiny": options.tiny}
    try:
        yield from PARTS[name](Bench(device, options.seconds, options.tiny), gpu_inputs.load())
    except Exception as error:
        # Whatever it is, the parts after this one may be able to do without.
        yield {"error": described(error)}


def in_a_process(name: str, options: argparse.Namespace) -> Iterator[Row]:
    """Yield the rows of a part that another process does, until its time is over."""
    command = [
        *(sys.executable, __file__, "--here", "--device", options.device, "--parts", name),
        *("--seconds", str(options.seconds), *(["--tiny"] if options.tiny else [])),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        watch = threading.Timer(options.seconds + GRACE_SECONDS, process.kill)
        watch.start()
        assert process.stdout is not None
        yield from filter(None, map(_row, process.stdout))
        watch.cancel()
    if process.returncode != 0:
        yield {"error": f"the process ended with {process.returncode}"}


def _row(line: str) -> Row | None:
    """Return a measurement; compilers, too, write to the standard output."""
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None


def tell(row: Row, output: Path | None) -> None:
    """Print a row at once, and append it to a file."""
    line = json.dumps(row)
    print(line, flush=True)
    if output is not None:
        with output.open("a") as stream:
            stream.write(line + "\n")


def collect(path: Path, *, write: bool) -> None:
    """Publish the lines of a file as one record, the rows of each part under its name."""
    from record import publish

    rows = [json.loads(line) for line in path.read_text().splitlines()]
    parts: dict[str, list[Row]] = {}
    measured_on: Row = {}
    for row in rows:
        name = row.pop("part")
        measured_on = row.pop("machine", measured_on)
        if row.keys() - {"tiny"}:
            parts.setdefault(name, []).append(row)
    publish("gpu", {"measured_on": measured_on, "parts": parts}, ("torch",), write=write)


if __name__ == "__main__":
    main()
