"""Latency of a served model, and whether it keeps up with many requests at once.

python benchmarks/serving.py --write
"""

import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import psutil
import typer
from record import publish, summary

import bnce_dist
from bnce_dist.generator.boltzmann_generator import BoltzmannGenerator
from bnce_dist.tracking.pyfunc import write_served_models

SHIPPED = Path(bnce_dist.__file__).parent / "models" / "ace-ala-nme.pt"
SERVE = """
import sys
from bnce_dist.tracking.pyfunc import serve

serve(sys.argv[1], port=int(sys.argv[2]))
"""


def main(
    model: Annotated[Path, typer.Option(help="A generator's file.")] = SHIPPED,
    conformations: Annotated[int, typer.Option(help="Per request.")] = 100,
    rounds: Annotated[int, typer.Option(help="Requests one after the other.")] = 50,
    concurrent: Annotated[int, typer.Option(help="Requests at once.")] = 100,
    write: Annotated[bool, typer.Option("--write", help="Also write the record.")] = False,
) -> None:
    """Serve the model, send requests, print one JSON line and write it if asked."""
    load = os.getloadavg()[0]
    generator = BoltzmannGenerator.load(model)
    positions = generator.sample(conformations, progress=False).positions_nm
    body = json.dumps({"inputs": positions.tolist()}).encode()
    with tempfile.TemporaryDirectory() as folder, socket.socket() as probe:
        served = write_served_models(Path(folder) / "served", model, positions[:1])
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        server = subprocess.Popen([sys.executable, "-c", SERVE, str(served[""]), str(port)])
        address = f"http://127.0.0.1:{port}"
        try:
            _wait_for(f"{address}/health", server)
            seconds = [_seconds(address, body) for _ in range(rounds + 3)][3:]
            before, started = _cpu_seconds(server), time.perf_counter()
            with ThreadPoolExecutor(concurrent) as threads:
                answered = list(threads.map(lambda _: _seconds(address, body), range(concurrent)))
            elapsed = time.perf_counter() - started
            cpu_seconds = _cpu_seconds(server) - before
        finally:
            server.terminate()
            server.wait()
    numbers = {
        "molecule": generator.molecule.name,
        "conformations_per_request": conformations,
        "latency_ms": summary([1000 * value for value in seconds]),
        "concurrent_requests": concurrent,
        "concurrent_answered": len(answered),
        "concurrent_median_ms": 1000 * statistics.median(answered),
        "concurrent_total_s": elapsed,
        "requests_per_second": concurrent / elapsed,
        "server_cpu_ms_per_request": 1000 * cpu_seconds / concurrent,
        "load_average_before": load,
    }
    publish("serving", numbers, ("torch", "mlflow"), write=write)


def _seconds(address: str, body: bytes) -> float:
    """Send one request, check that its answer is whole, and return how long it took."""
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{address}/invocations", body, headers)
    started = time.perf_counter()
    with urllib.request.urlopen(request, timeout=300) as answer:
        weights = json.load(answer)["predictions"]["log_weight"]
    elapsed = time.perf_counter() - started
    if len(weights) != len(json.loads(body)["inputs"]):
        raise RuntimeError("an answer is incomplete")
    return elapsed


def _cpu_seconds(server: subprocess.Popen[bytes]) -> float:
    times = psutil.Process(server.pid).cpu_times()
    return times.user + times.system


def _wait_for(address: str, server: subprocess.Popen[bytes]) -> None:
    while server.poll() is None:
        with suppress(OSError), urllib.request.urlopen(address, timeout=5):
            return
        time.sleep(0.5)
    raise RuntimeError("the server did not start")


if __name__ == "__main__":
    typer.run(main)
