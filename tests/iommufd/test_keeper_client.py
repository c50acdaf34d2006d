# SPDX-License-Identifier: Apache-2.0
"""The keeper's client: it finds a keeper or starts one, and tells when what was held is gone."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from iommuctl.errors import Lost, NoRoom, PermissionRefused, SystemFailed, Usage
from iommuctl.iommufd import keeper_client, keeper_service, keeper_store
from iommuctl.iommufd import keeper_wire as wire
from iommuctl.iommufd.keeper_client import Keeper
from tests.iommufd.keepers import ROOT, Manager, Process, eventually, memory, running

DEVICE = "vfio-0000:00:10.0"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def started(folder: Path) -> Iterator[Callable[[], Keeper]]:
    """Starts a keeper, or connects to it; it is stopped in the end."""
    keepers: list[Keeper] = []

    def start() -> Keeper:
        keepers.append(Keeper.start(folder))
        return keepers[-1]

    yield start
    for keeper in keepers:
        keeper.close()
    left = Keeper.connect(folder)
    if left:
        left.stop()


def put(keeper: Keeper, name: str, content: bytes) -> None:
    descriptor = memory(content)
    keeper.put(name, descriptor)
    os.close(descriptor)


def content(keeper: Keeper, name: str) -> bytes | None:
    descriptor = keeper.get(name)
    return None if descriptor is None else os.pread(descriptor, 100, 0)


def process(pid: int, name: str) -> str:
    """A line of /proc/PID/status."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line.split(":")[1].strip() for line in lines if line.startswith(f"{name}:"))


def test_no_keeper_is_none(folder: Path) -> None:
    assert Keeper.connect(folder) is None
    assert not folder.exists()
    folder.mkdir(mode=0o700)
    assert Keeper.connect(folder) is None
    with running(folder) as killed:
        killed.kill(signal.SIGKILL)
    assert Keeper.connect(folder) is None


def test_what_one_client_puts_another_one_gets(folder: Path, started: Callable[[], Keeper]) -> None:
    first = started()
    put(first, DEVICE, b"device")
    put(first, "iommufd", b"iommufd")
    first.close()
    second = Keeper.connect(folder)
    assert second
    assert (second.boot, second.pid) == (first.boot, first.pid)
    assert second.names() == ["iommufd", DEVICE]
    assert content(second, DEVICE) == b"device"
    assert second.get("memory-1") is None
    second.drop("iommufd")
    assert second.names() == [DEVICE]
    second.close()


def test_names_come_in_several_packets(started: Callable[[], Keeper]) -> None:
    keeper = started()
    names = sorted(f"{number:03}-".ljust(wire.MOST_NAME, "x") for number in range(40))
    for name in names:
        put(keeper, name, b"")
    assert keeper.names() == names


def test_a_copy_is_made_once_and_not_inherited(started: Callable[[], Keeper]) -> None:
    keeper = started()
    put(keeper, DEVICE, b"device")
    copy = keeper.get(DEVICE)
    assert copy is not None
    assert keeper.get(DEVICE) == copy
    assert not os.get_inheritable(copy)
    put(keeper, DEVICE, b"in its place")
    assert content(keeper, DEVICE) == b"in its place"
    copy = keeper.get(DEVICE)
    assert copy is not None
    keeper.drop(DEVICE)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(copy)
    assert keeper.get(DEVICE) is None
    put(keeper, DEVICE, b"device")
    copy = keeper.get(DEVICE)
    assert copy is not None
    keeper.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(copy)


def test_errors_of_the_keeper_are_raised(folder: Path) -> None:
    with running(folder, prelude="ulimit -n 257"):
        keeper = Keeper.connect(folder)
        assert keeper
        with pytest.raises(Usage, match=r"a name has 1 to 255 characters of \[A-Za-z0-9:._-\]"):
            put(keeper, "a/b", b"")
        put(keeper, "a", b"")
        with pytest.raises(NoRoom, match="the keeper holds 1 descriptors already"):
            put(keeper, "b", b"")
        keeper.close()


def test_who_is_turned_away_is_told_why(folder: Path) -> None:
    with running(folder), contextlib.ExitStack() as clients:
        for _ in range(keeper_service.MOST_CLIENTS):
            keeper = Keeper.connect(folder)
            assert keeper
            clients.callback(keeper.close)
        for _ in range(20):
            with pytest.raises(NoRoom, match="the keeper has 64 clients already"):
                Keeper.connect(folder)


def test_stop_ends_the_keeper(folder: Path, started: Callable[[], Keeper]) -> None:
    first = started()
    put(first, DEVICE, b"device")
    first.stop()
    assert Keeper.connect(folder) is None
    second = started()
    assert second.boot != first.boot
    assert second.names() == []


def test_a_keeper_that_died_is_a_loss(started: Callable[[], Keeper]) -> None:
    keeper = started()
    put(keeper, DEVICE, b"device")
    os.kill(keeper.pid, signal.SIGKILL)
    with pytest.raises(Lost, match="has died") as lost:
        keeper.get(DEVICE)
    with pytest.raises(Lost):
        keeper.names()
    assert "iommuctl recover" in lost.value.hint
    started()
    with pytest.raises(Lost):
        keeper.names()


def test_a_successor_with_the_same_descriptors_is_none(folder: Path, tmp_path: Path) -> None:
    folder.mkdir(mode=0o700)
    with Manager(tmp_path / "notify") as manager, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.bind(str(folder / wire.SOCKET))
        listening.listen()
        passed = {keeper_store.SOCKET_NAME: listening.fileno()}
        with Process(folder, notify=manager.place, passed=passed) as first:
            keeper = Keeper.connect(folder)
            assert keeper
            put(keeper, DEVICE, b"device")
            eventually(lambda: len(manager.kept) == 2)
            first.kill(signal.SIGKILL)
            first.wait()
        with Process(folder, notify=manager.place, passed={**passed, **manager.kept}) as second:
            assert content(keeper, DEVICE) == b"device"
            assert keeper.pid == second.pid
        with Process(folder, passed=passed), pytest.raises(Lost):
            keeper.names()
        assert content(keeper, DEVICE) == b"device", "of which this process has a copy"
        keeper.close()


def test_a_keeper_that_does_not_answer_is_waited_for_in_bounds(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper_client, "_START_SECONDS", 0.1)
    with running(folder) as keeper:
        keeper.kill(signal.SIGSTOP)
        with pytest.raises(SystemFailed, match="cannot be asked") as failed:
            Keeper.connect(folder)
        assert failed.value.because == "it does not answer"
        keeper.kill(signal.SIGCONT)


def test_a_keeper_that_does_not_come_up_has_the_last_word(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    (folder / wire.SOCKET).mkdir()
    with pytest.raises(SystemFailed) as failed:
        Keeper.start(folder)
    assert (failed.value.what, failed.value.because) == (
        f"the keeper of {folder} does not start",
        "iommuctl keeper: [Errno 21] Is a directory: 'keeper.sock'",
    )


def test_a_keeper_that_holds_the_folder_and_never_listens(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper_client, "_START_SECONDS", 1)
    with running(folder):
        (folder / wire.SOCKET).unlink()
        with pytest.raises(SystemFailed, match=r"the keeper of .* does not (come up|start)") as failed:
            Keeper.start(folder)
    assert failed.value.because in ("iommuctl keeper: another keeper is at work for this folder", "it took too long")


def test_folders_that_are_not_private_are_refused(folder: Path) -> None:
    folder.mkdir(mode=0o755)
    for method in (Keeper.connect, Keeper.start):
        with pytest.raises(PermissionRefused, match="is not private") as refused:
            method(folder)
        assert "its mode is 0755" in refused.value.because
        assert f"chmod 0700 {folder}" in refused.value.hint
    folder.rmdir()
    folder.write_text("")
    with pytest.raises(SystemFailed):
        Keeper.start(folder)


def test_paths_can_be_longer_than_an_address(tmp_path: Path) -> None:
    keeper = Keeper.start(tmp_path / ("x" * 100) / ("y" * 100))
    put(keeper, DEVICE, b"device")
    assert content(keeper, DEVICE) == b"device"
    keeper.stop()


def test_it_is_light() -> None:
    """What a command imports for it is loaded anyway, but for `socket`."""
    code = "import sys, json, pathlib, socket, iommuctl.errors; before = set(sys.modules); "
    code += "import iommuctl.iommufd.keeper_client; print(*set(sys.modules) - before)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=20, cwd=ROOT
    )
    assert {name for name in done.stdout.split() if not name.startswith("iommuctl.iommufd")} <= {"typing"}


STARTS = """
import os, signal, sys, time
from pathlib import Path
# Whoever runs the tests may have it ignored, as nohup does.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
from iommuctl.iommufd.keeper_client import Keeper
keeper = Keeper.start(Path(sys.argv[1]))
print(keeper.pid, keeper.boot, flush=True)
time.sleep(float(sys.argv[2]))
"""


def client(folder: Path, seconds: float = 0, **more: object) -> subprocess.Popen[str]:
    """A process that starts a keeper, prints its process id and boot id, and stays for a time."""
    command = [sys.executable, "-c", STARTS, str(folder), str(seconds)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, **more)  # type: ignore[call-overload,no-any-return]


def test_clients_that_start_one_at_the_same_time_get_the_same(folder: Path, started: Callable[[], Keeper]) -> None:
    clients = [client(folder) for _ in range(4)]
    told = {one.communicate(timeout=20)[0] for one in clients}
    keeper = started()
    assert told == {f"{keeper.pid} {keeper.boot}\n"}


def test_it_is_detached(folder: Path, tmp_path: Path, started: Callable[[], Keeper]) -> None:
    with open(tmp_path / "inherited", "w") as inherited:
        one = client(folder, pass_fds=[inherited.fileno()], cwd=tmp_path, umask=0)
        assert one.communicate(timeout=20)[0]
    keeper = started()
    pid = keeper.pid
    session = os.getsid(pid)
    assert session not in (os.getsid(0), pid), "a session of its own, which it does not lead"
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    assert int(fields[4]) == 0, "no terminal"
    assert os.readlink(f"/proc/{pid}/cwd") == "/"
    assert process(pid, "Umask") == "0077"
    open_files = {name: os.readlink(f"/proc/{pid}/fd/{name}") for name in os.listdir(f"/proc/{pid}/fd")}
    assert [open_files[name] for name in "012"] == ["/dev/null", "/dev/null", str(folder / "keeper.log")]
    assert str(tmp_path / "inherited") not in open_files.values()
    assert (folder / "keeper.log").stat().st_mode & 0o777 == 0o600


def test_it_survives_the_group_of_its_client(folder: Path, started: Callable[[], Keeper]) -> None:
    one = client(folder, 60, start_new_session=True)
    assert one.stdout
    told = one.stdout.readline()
    os.killpg(one.pid, signal.SIGKILL)
    one.wait()
    one.stdout.close()
    keeper = started()
    assert told == f"{keeper.pid} {keeper.boot}\n"


def test_it_survives_the_terminal(folder: Path, started: Callable[[], Keeper]) -> None:
    ours, theirs = os.openpty()
    one = client(folder, 60, stdin=theirs, stderr=theirs, start_new_session=True, preexec_fn=take_terminal)
    os.close(theirs)
    assert one.stdout
    told = one.stdout.readline()
    os.close(ours)
    assert one.wait(20) == -signal.SIGHUP
    one.stdout.close()
    keeper = started()
    assert told == f"{keeper.pid} {keeper.boot}\n"


def take_terminal() -> None:
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def test_a_keeper_for_another_manager_is_not_confused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, started: Callable[[], Keeper]
) -> None:
    """One that a service starts on demand must not give its descriptors to that service's store."""
    with Manager(tmp_path / "notify") as manager:
        monkeypatch.setenv("NOTIFY_SOCKET", manager.place)
        put(started(), DEVICE, b"device")
        assert not manager.ready.is_set()
        assert not manager.kept


def test_modules_do_not_come_from_the_working_directory(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, started: Callable[[], Keeper]
) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('a module of the working directory')")
    monkeypatch.chdir(tmp_path)
    assert started().names() == []
