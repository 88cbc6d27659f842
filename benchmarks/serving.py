"""Latency of a served model, whether it keeps up with many requests, and whether its memory grows.

    python benchmarks/serving.py --minutes 60 --write

Requests come one after the other, many at once, too large ones, and then from a few clients,
without a pause or with one, for as long as is asked for; the goal is 60 requests of 100
conformations per second on two quiet cores. The server's resident memory is fitted by a line
against the requests answered, without the first tenth of them.
"""

import http.client
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer
from record import publish, summary
from scipy.stats import linregress

import bnce_dist
from bnce_dist.generator.boltzmann_generator import BoltzmannGenerator
from bnce_dist.tracking.pyfunc import write_served_models
from bnce_dist.tracking.server import MAX_BODY_BYTES

SHIPPED = Path(bnce_dist.__file__).parent / "models" / "ace-ala-nme.pt"
SERVE = """
import sys
from bnce_dist.tracking.pyfunc import serve

serve(sys.argv[1], port=int(sys.argv[2]))
"""
HEADERS = {"Content-Type": "application/json"}
SAMPLE_SECONDS = 10.0
WARM_UP_SHARE = 0.1
NUM_TOO_LARGE = 20


def main(
    model: Annotated[Path, typer.Option(help="A generator's file.")] = SHIPPED,
    conformations: Annotated[int, typer.Option(help="Per request.")] = 100,
    rounds: Annotated[int, typer.Option(help="Requests one after the other.")] = 50,
    concurrent: Annotated[int, typer.Option(help="Requests at once.")] = 100,
    clients: Annotated[int, typer.Option(help="That go on sending.")] = 4,
    pause: Annotated[float, typer.Option(help="Of a client between two requests [s].")] = 0.0,
    minutes: Annotated[float, typer.Option(help="How long they do.")] = 1.0,
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
            seconds = [_seconds(address, body, conformations) for _ in range(rounds + 3)][3:]
            before, started = _cpu_seconds(server), time.perf_counter()
            with ThreadPoolExecutor(concurrent) as threads:
                send = partial(_seconds, address, body)
                answered = list(threads.map(send, [conformations] * concurrent))
            elapsed = time.perf_counter() - started
            cpu_seconds = _cpu_seconds(server) - before
            too_large = [_status_of_too_large(port) for _ in range(NUM_TOO_LARGE)]
            sustained = sustained_load(server, port, body, clients, pause, 60 * minutes)
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
        "too_large_sent": NUM_TOO_LARGE,
        "too_large_refused": sum(400 <= status < 500 for status in too_large),
        "sustained": sustained,
        "load_average_before": load,
    }
    publish("serving", numbers, ("torch", "mlflow"), write=write)


def sustained_load(
    server: subprocess.Popen[bytes],
    port: int,
    body: bytes,
    clients: int,
    pause_seconds: float,
    seconds: float,
) -> dict[str, Any]:
    """Return the rate of requests that clients get answered, and what that does to the memory.

    Raises: Exception: what a client met first; every request has to be answered.
    """
    over, answered = threading.Event(), [list[float]() for _ in range(clients)]
    started, process = time.monotonic(), psutil.Process(server.pid)
    memory: list[tuple[int, float]] = []
    with ThreadPoolExecutor(clients) as threads:
        num_expected = len(json.loads(body)["inputs"])
        send = partial(_send_until, over, port, body, num_expected, pause_seconds)
        sending = [threads.submit(send, times) for times in answered]
        while (left := started + seconds - time.monotonic()) > 0:
            if wait(sending, min(SAMPLE_SECONDS, left), FIRST_COMPLETED).done:
                break
            memory.append((sum(map(len, answered)), process.memory_info().rss / 1e6))
        over.set()
    for client in sending:
        client.result()
    elapsed = time.monotonic() - started
    latencies = [1000 * value for times in answered for value in times]
    return {
        "clients": clients,
        "pause_seconds": pause_seconds,
        "minutes": seconds / 60,
        "requests": len(latencies),
        "requests_per_second": len(latencies) / elapsed,
        "latency_ms": summary(latencies),
        "memory_mb": [round(memory[0][1], 1), round(memory[-1][1], 1)],
        **_growth(memory),
    }


def _send_until(
    over: threading.Event,
    port: int,
    body: bytes,
    num_expected: int,
    pause_seconds: float,
    times: list[float],
) -> None:
    """Send requests over one connection and note how long each took [s]."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=300)) as connection:
        while not over.is_set():
            started = time.perf_counter()
            connection.request("POST", "/invocations", body, HEADERS)
            weights = json.load(connection.getresponse())["predictions"]["log_weight"]
            if len(weights) != num_expected:
                raise RuntimeError("an answer is incomplete")
            times.append(time.perf_counter() - started)
            over.wait(pause_seconds)


def _growth(memory: list[tuple[int, float]]) -> dict[str, float | None]:
    """Return the slope of memory against requests after the warm-up, with its standard error."""
    kept = [(n / 1000, mb) for n, mb in memory if n > WARM_UP_SHARE * memory[-1][0]]
    if len(kept) < 3:
        return {"memory_mb_per_1000_requests": None, "memory_mb_per_1000_requests_stderr": None}
    fit = linregress(*zip(*kept, strict=True))
    return {
        "memory_mb_per_1000_requests": float(fit.slope),
        "memory_mb_per_1000_requests_stderr": float(fit.stderr),
    }


def _status_of_too_large(port: int) -> int:
    """Return what a request is answered that declares one byte more than is allowed."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        connection.putrequest("POST", "/invocations")
        for name, value in (HEADERS | {"Content-Length": str(MAX_BODY_BYTES + 1)}).items():
            connection.putheader(name, value)
        connection.endheaders()
        return connection.getresponse().status


def _seconds(address: str, body: bytes, num_expected: int) -> float:
    """Send one request, check that its answer is whole, and return how long it took."""
    request = urllib.request.Request(f"{address}/invocations", body, HEADERS)
    started = time.perf_counter()
    with urllib.request.urlopen(request, timeout=300) as answer:
        weights = json.load(answer)["predictions"]["log_weight"]
    elapsed = time.perf_counter() - started
    if len(weights) != num_expected:
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
