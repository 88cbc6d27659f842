"""Addresses of Ray clusters as people write them, and what listens there."""

import os
import re
import socket

from bnce_dist.core.errors import InputError

PORT, CLIENT_PORT, DASHBOARD_PORT = 6379, 10001, 8265
"""Of a head node, unless it was started with others: for nodes, for `ray://`, for browsers."""
ANSWER_SECONDS = 30

_ADDRESS = re.compile(
    r"(?:(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://)?"
    r"(?P<host>\[[0-9A-Fa-f:.%]+\]|[^\s/:\[\]@]+)"
    r"(?::(?P<port>\d{1,5}))?"
    r"(?P<path>/\S*)?"
)
# The greeting of HTTP/2, which gRPC speaks, with an empty frame of settings; the answer is one.
_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
_FRAME_TYPE, _SETTINGS = 3, 4


def cluster_address(written: str | None) -> str | None:
    """Return the address of a cluster in the form that Ray takes.

    Args:
        written: As a user wrote it, e.g. in ``RAY_ADDRESS``. A port that is missing is the
            default one.

    Returns: ``HOST:PORT``, ``ray://HOST:PORT`` or ``auto``; nothing for a cluster of one's own.
    Raises: InputError: it is no such address, or that of the dashboard.
    """
    text = (written or "").strip().strip("'\"").strip()
    if text.lower() in ("", "local", "auto"):
        return "auto" if text.lower() == "auto" else None
    match = _ADDRESS.fullmatch(text)
    if match is None or (match["port"] and not 0 < int(match["port"]) < 2**16):
        raise refused(text, "something else", "write HOST:6379, with an IPv6 address in brackets")
    scheme, host, port = (match["scheme"] or "").lower(), match["host"], match["port"]
    if scheme in ("http", "https") or (not scheme and port == str(DASHBOARD_PORT)):
        raise is_dashboard(text, host)
    if scheme not in ("", "ray") or (match["path"] or "/") != "/":
        raise refused(text, "an address of something else", f"write {host}:{port or PORT}")
    if scheme:
        return f"ray://{host}:{port or CLIENT_PORT}"
    return f"{host}:{port or PORT}"


def require_answer(address: str) -> None:
    """Raise unless a Ray cluster listens there; Ray itself would try for minutes, or for ever.

    Args:
        address: As from `cluster_address`.

    Raises:
        OSError: nobody listens there.
        InputError: somebody else does.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host:
        return
    try:
        with socket.create_connection((host.strip("[]"), int(port)), ANSWER_SECONDS) as stream:
            if os.environ.get("RAY_USE_TLS", "0") not in ("0", ""):
                return
            stream.sendall(_GREETING)
            answer = stream.recv(64)
    except UnicodeError as error:
        raise refused(address, "no name of a machine", "correct the name") from error
    except (TimeoutError, ConnectionResetError) as error:
        raise refused(address, "something that does not answer", "check the port") from error
    if answer.startswith(b"HTTP/1"):
        raise is_dashboard(address, host)
    if answer[_FRAME_TYPE : _FRAME_TYPE + 1] != bytes([_SETTINGS]):
        raise refused(address, f"something that says {answer[:20]!r}", "check the port")


def is_dashboard(address: str, host: str) -> InputError:
    """Return the error of an address that is for browsers and for ``ray job submit`` alone."""
    return refused(
        address,
        "the address of the dashboard",
        f"export RAY_ADDRESS={host}:{PORT}, or submit the command: "
        f"ray job submit --address http://{host}:{DASHBOARD_PORT} -- ...",
    )


def refused(address: str, got: object, remedy: str) -> InputError:
    """Return the error of an address at which there is no cluster for us."""
    return InputError(
        f"Ray cluster {address} (RAY_ADDRESS)",
        expected="HOST:PORT of a running cluster that accepts this client",
        got=got,
        remedy=f"{remedy}, or unset RAY_ADDRESS to run on this machine alone",
    )
