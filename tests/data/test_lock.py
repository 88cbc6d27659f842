import errno
import fcntl
import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from bnce_dist.core.errors import InputError
from bnce_dist.data import lock
from bnce_dist.data.lock import Taken, only_process


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / ".lock"


@pytest.fixture(params=[None, errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """File systems with the kernel's lock and without it."""
    if request.param is not None:

        def refuse(*_: object) -> None:
            raise OSError(request.param, os.strerror(request.param))

        monkeypatch.setattr(fcntl, "flock", refuse)


def left_behind(path: Path, host: str, pid: int, pid_space: str | None = None) -> Path:
    owner = path.with_name(".lock.owner")
    space = lock._pid_space() if pid_space is None else pid_space
    content = {"host": host, "pid": pid, "pid_space": space, "id": "x", "beat": 3}
    owner.write_text(json.dumps(content))
    return owner


def test_the_second_is_told_who_is_there(path: Path, kernel: None) -> None:
    with (
        only_process(path),
        pytest.raises(Taken, match=f"process {os.getpid()} on {socket.gethostname()}"),
        only_process(path),
    ):
        pass
    with only_process(path):
        pass
    assert not path.with_name(".lock.owner").exists()


def test_what_a_killed_process_left_is_taken_over(path: Path, kernel: None) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    left_behind(path, socket.gethostname(), ended.pid)
    with only_process(path):
        pass


def test_a_process_of_this_node_that_lives_keeps_its_lock(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSYS, "")

    monkeypatch.setattr(fcntl, "flock", refuse)
    left_behind(path, socket.gethostname(), os.getppid())
    with pytest.raises(Taken, match=str(os.getppid())), only_process(path):
        pass


@pytest.mark.parametrize("number", [errno.EIO, errno.EPERM])
def test_a_file_system_that_fails_at_locking_is_one_line(
    path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    message = f"lock file .*, got {os.strerror(number)}; choose an --output on another file system"
    with pytest.raises(InputError, match=message), only_process(path):
        pass


@pytest.mark.parametrize("host", ["elsewhere", socket.gethostname()], ids=["node", "container"])
def test_another_node_or_container_is_believed_while_it_shows_life(
    path: Path, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    # The kernel's lock may be one of this node alone, and the process invisible from here.
    owner = left_behind(path, host, 2**22 + 1, "another boot pid:[1]")

    def live() -> None:
        time.sleep(0.5)
        owner.write_text(owner.read_text().replace('"beat": 3', '"beat": 4'))

    threading.Thread(target=live).start()
    with pytest.raises(Taken, match=f"process {2**22 + 1} on {host}"), only_process(path):
        pass
    monkeypatch.setattr(lock, "WATCH_SECONDS", 0.5)
    with only_process(path):
        assert json.loads(owner.read_text())["pid"] == os.getpid()


def test_the_holder_shows_life(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "BEAT_SECONDS", 0.05)
    with only_process(path):
        before = path.with_name(".lock.owner").read_text()
        deadline = time.monotonic() + 30
        while path.with_name(".lock.owner").read_text() == before:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_of_two_that_find_it_dead_one_gets_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    file = left_behind(path, socket.gethostname(), ended.pid)
    slow, fast = lock._Owner(file), lock._Owner(file)
    look = slow._require_dead

    def let_the_other_in(found: dict, has_kernel_lock: bool) -> None:
        look(found, has_kernel_lock)
        fast.take(has_kernel_lock)

    monkeypatch.setattr(slow, "_require_dead", let_the_other_in)
    with pytest.raises(Taken):
        slow.take(False)
    assert json.loads(file.read_text())["id"] == fast._content["id"]
    assert list(path.parent.glob(".*owner.*")) == []
    fast.release()
    assert not file.exists()


def test_one_that_slept_leaves_alone_what_was_taken_over(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "BEAT_SECONDS", 0.2)  # none while the file is being replaced
    with only_process(path):
        file = left_behind(path, "elsewhere", 7)
        taken = file.read_text()
        time.sleep(0.6)
    assert file.read_text() == taken


def test_one_that_waits_gets_it_in_the_end(path: Path, kernel: None) -> None:
    order = []

    def hold() -> None:
        with only_process(path, wait_seconds=60):
            order.append("in")
            time.sleep(0.2)
            order.append("out")

    threads = [threading.Thread(target=hold) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert order == ["in", "out"] * 3


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot write"), only_process(tmp_path / "no" / ".lock"):
        pass
