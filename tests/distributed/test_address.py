"""Addresses of clusters in the forms in which people write them, and what listens there."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from bnce_dist.core.errors import InputError
from bnce_dist.distributed import address as addresses
from bnce_dist.distributed.address import cluster_address, require_answer
from bnce_dist.distributed.cluster import ensure_ray


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (None, None),
        ("", None),
        ("  ", None),
        ("local", None),
        ("auto", "auto"),
        ("AUTO", "auto"),
        ("Local", None),
        ("host", "host:6379"),
        ("host:6380", "host:6380"),
        (" 'host:6379/' ", "host:6379"),
        ("10.0.0.1", "10.0.0.1:6379"),
        ("[::1]:6379", "[::1]:6379"),
        ("[fe80::1]", "[fe80::1]:6379"),
        ("ray://host", "ray://host:10001"),
        ("RAY://host:7/", "ray://host:7"),
        ("rechner-ü:1", "rechner-ü:1"),
    ],
)
def test_one_form(written: str | None, meant: str | None) -> None:
    assert cluster_address(written) == meant


@pytest.mark.parametrize(
    ("written", "part"),
    [
        ("http://head:8265", "got the address of the dashboard; export RAY_ADDRESS=head:6379"),
        ("https://head/x/", "got the address of the dashboard; export RAY_ADDRESS=head:6379"),
        ("http://[::1]:8265/", r"export RAY_ADDRESS=\[::1\]:6379"),
        ("head:8265", "got the address of the dashboard"),
        ("redis://head:6379", "write head:6379"),
        ("head:6379/x", "write head:6379"),
        ("::1", "IPv6 address in brackets"),
        ("head:", "write HOST:6379"),
        ("head:0", "write HOST:6379"),
        ("head:65536", "write HOST:6379"),
        ("my head:6379", "write HOST:6379"),
        ("me@head:6379", "write HOST:6379"),
    ],
)
def test_what_is_no_address_is_one_line(written: str, part: str) -> None:
    with pytest.raises(InputError, match=part) as caught:
        cluster_address(written)
    assert "\n" not in str(caught.value)


@pytest.fixture
def listen() -> Iterator[Callable[[bytes | None], str]]:
    """Answer the first greeting with some bytes, or never."""
    sockets = []

    def start(answer: bytes | None) -> str:
        server = socket.create_server(("127.0.0.1", 0))
        sockets.append(server)

        def serve() -> None:
            stream, _ = server.accept()
            sockets.append(stream)
            stream.recv(1000)
            if answer is not None:
                stream.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        return f"127.0.0.1:{server.getsockname()[1]}"

    yield start
    for opened in sockets:
        opened.close()


def test_what_speaks_http_2_passes(listen: Callable[[bytes | None], str]) -> None:
    require_answer(listen(bytes([0, 0, 6, 4, 0, 0, 0, 0, 0]) + bytes(6)))


@pytest.mark.parametrize(
    ("answer", "part"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "the address of the dashboard"),
        (b"SSH-2.0-OpenSSH\r\n", "says b'SSH"),
        (None, "does not answer"),
    ],
)
def test_what_is_no_cluster_is_told_at_once(
    listen: Callable[[bytes | None], str],
    answer: bytes | None,
    part: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(addresses, "ANSWER_SECONDS", 1)
    with pytest.raises(InputError, match=part):
        require_answer(listen(answer))


def test_nobody_there() -> None:
    with pytest.raises(OSError, match="refused"):
        require_answer("127.0.0.1:9")
    with pytest.raises(InputError, match="no name of a machine"):
        require_answer("." + "x" * 70 + ":6379")


@pytest.mark.ray
def test_a_real_cluster_answers(two_cpus: None) -> None:
    import ray

    require_answer(ray.get_runtime_context().gcs_address)


@pytest.mark.ray
@pytest.mark.parametrize(
    ("folder", "part"),
    [("x" * 60 + "/" + "y" * 40, "at most 107 bytes"), ("file", "Ray on this machine: expected")],
)
def test_a_temporary_folder_that_ray_cannot_use(folder: str, part: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    if folder != "file":
        (tmp_path / folder).mkdir(parents=True)
    code = (
        "from bnce_dist.distributed.cluster import ensure_ray\n"
        "try: ensure_ray()\n"
        "except ValueError as error: print(error)"
    )
    environment = {**os.environ, "RAY_TMPDIR": str(tmp_path / folder)}
    environment.pop("RAY_ADDRESS", None)
    ended = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    (line,) = ended.stdout.splitlines()
    assert part in line
    assert "RAY_TMPDIR" in line


BUSY = "The current node timed out during startup. This could happen because ..."


@pytest.mark.parametrize(
    ("failures", "tries", "refusal"),
    [
        ([BUSY], 2, ""),
        ([BUSY, BUSY], 2, "timed out during startup.*try again if the machine was busy"),
        (["no room left"], 1, "no room left"),
    ],
)
def test_a_busy_machine_gets_a_second_try(
    failures: list[str], tries: int, refusal: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[object] = []

    def start(**options: object) -> None:
        tried.append(options["address"])
        if len(tried) <= len(failures):
            raise Exception(failures[len(tried) - 1])

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("ray.init", start)
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr("ray.shutdown", lambda: None)  # The cluster of other tests stays.
    with pytest.raises(InputError, match=refusal) if refusal else nullcontext():
        ensure_ray()
    assert tried == ["local"] * tries
