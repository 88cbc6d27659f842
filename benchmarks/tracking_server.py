"""An MLflow server that can be killed and started again."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

LONGEST_START_SECONDS = 240.0


class Server:
    """A server with a SQLite store, on a port of this machine.

    Args:
        folder: Of the store, ``mlflow.db``, and of what is logged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, if it does not run, and wait until it answers."""
        if self._runs():
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        options = [
            *("--host=127.0.0.1", f"--port={self.port}", "--workers=1"),
            f"--backend-store-uri=sqlite:///{self.folder / 'mlflow.db'}",
            f"--artifacts-destination={self.folder / 'artifacts'}",
        ]
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "mlflow", "server", *options],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + LONGEST_START_SECONDS
        while not self._answers():
            if time.monotonic() > deadline:
                raise SystemExit((self.folder / "server.log").read_text())
            time.sleep(0.2)

    def kill(self) -> None:
        """End it and all of its processes at once, if it runs."""
        if self.process is not None and self._runs():
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def _runs(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.address}/health", timeout=2) as reply:
                return bool(reply.status == 200)
        except (urllib.error.URLError, OSError):
            return False
