# SPDX-License-Identifier: Apache-2.0
"""The keeper and its service manager: sockets that are passed, the store of descriptors, and the units."""

import configparser
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from iommuctl.iommufd import keeper, keeper_service, keeper_store
from iommuctl.iommufd import keeper_wire as wire
from tests.iommufd.keepers import ROOT, SECONDS, Manager, Process, ask, connect, eventually, memory, text

REQUIRED = "IOMMUCTL_REQUIRE_LAB"
UNITS = Path(__file__).parents[2] / "examples" / "systemd"
DEVICE = "vfio-0000:00:10.0"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "state"
    place.mkdir(mode=0o700)
    return place


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    with Manager(tmp_path / "notify") as one:
        yield one


@pytest.fixture
def listening(folder: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as one:
        one.bind(str(folder / wire.SOCKET))
        one.listen()
        yield one


def put(client: socket.socket, name: str, content: bytes) -> None:
    descriptor = memory(content)
    assert ask(client, [descriptor], ask="put", name=name) == ({}, [])
    os.close(descriptor)


def get(client: socket.socket, name: str) -> bytes | None:
    _, descriptors = ask(client, ask="get", names=[name])
    return text(descriptors[0]) if descriptors else None


def test_what_is_held_is_in_the_store(folder: Path, manager: Manager) -> None:
    with Process(folder, notify=manager.place), connect(folder) as client:
        boot = ask(client, ask="hello")[0]["boot"]
        assert manager.ready.wait(SECONDS)
        put(client, DEVICE, b"device")
        put(client, "iommufd", b"first")
        put(client, "iommufd", b"second")
        # A drop is answered when the manager has read all that it was told.
        ask(client, ask="drop", name=DEVICE)
        assert sorted(manager.kept) == [f"+boot-{boot}", "iommufd"]
        assert os.pread(manager.kept["iommufd"], 9, 0) == b"second"
        put(client, DEVICE, b"again")
        eventually(lambda: "vfio-0000@00@10.0" in manager.kept)
        ask(client, ask="stop")
        eventually(lambda: not manager.kept)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_restart_gives_it_back(folder: Path, manager: Manager, number: signal.Signals) -> None:
    with Process(folder, notify=manager.place) as first, connect(folder) as client:
        boot = ask(client, ask="hello")[0]["boot"]
        put(client, DEVICE, b"device")
        put(client, "iommufd", b"iommufd")
        eventually(lambda: len(manager.kept) == 3)
        first.kill(number)
        first.wait()
    with Process(folder, notify=manager.place, passed=manager.kept) as second, connect(folder) as client:
        assert ask(client, ask="hello")[0] == {"boot": boot, "pid": second.pid}
        assert ask(client, ask="list", after="")[0]["names"] == ["iommufd", DEVICE]
        assert (get(client, DEVICE), get(client, "iommufd")) == (b"device", b"iommufd")
        ask(client, ask="drop", name=DEVICE)
        assert sorted(manager.kept) == [f"+boot-{boot}", "iommufd"]
    with Process(folder, notify=manager.place), connect(folder) as client:
        assert ask(client, ask="hello")[0]["boot"] != boot


def test_descriptors_without_a_boot_id_are_nobody_s(folder: Path, manager: Manager) -> None:
    device, foreign = memory(b"device"), memory(b"foreign")
    manager.kept[DEVICE.replace(":", "@")] = device
    passed = {**manager.kept, "+what": foreign}
    with Process(folder, notify=manager.place, passed=passed) as process, connect(folder) as client:
        boot = ask(client, ask="hello")[0]["boot"]
        assert get(client, DEVICE) is None
        eventually(lambda: list(manager.kept) == [f"+boot-{boot}"])
        # stdio, the pipe of signals, the folder, its lock, the socket, the client, and the manager's
        assert process.descriptors() == 10
    os.close(foreign)


def test_a_manager_that_is_gone_hinders_nothing(folder: Path, tmp_path: Path) -> None:
    with Manager(tmp_path / "notify") as manager:
        process = Process(folder, notify=manager.place)
        client = connect(folder)
        assert manager.ready.wait(SECONDS)
    with process, client:
        put(client, DEVICE, b"device")
        assert get(client, DEVICE) == b"device"
        ask(client, ask="drop", name=DEVICE)
        assert "systemd's store of descriptors: " in process.said()


def test_a_passed_socket_is_used(folder: Path, listening: socket.socket, manager: Manager) -> None:
    passed = {keeper_store.SOCKET_NAME: listening.fileno()}
    with connect(folder) as client:
        wire.send(client, {"ask": "hello"})
        with Process(folder, "--idle", "0.05", passed=passed, notify=manager.place) as process:
            assert wire.receive(client)[0]["pid"] == process.pid
            client.close()
            assert process.wait() == 0
    assert (folder / wire.SOCKET).exists()


def test_a_restart_gives_the_socket_and_the_descriptors(
    folder: Path, listening: socket.socket, manager: Manager
) -> None:
    passed = {keeper_store.SOCKET_NAME: listening.fileno()}
    with Process(folder, passed=passed, notify=manager.place), connect(folder) as client:
        boot = ask(client, ask="hello")[0]["boot"]
        put(client, DEVICE, b"device")
        eventually(lambda: len(manager.kept) == 2)
    with Process(folder, passed={**passed, **manager.kept}, notify=manager.place), connect(folder) as client:
        assert ask(client, ask="hello")[0]["boot"] == boot
        assert get(client, DEVICE) == b"device"


def test_a_passed_socket_of_another_kind_is_refused(folder: Path, tmp_path: Path) -> None:
    stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with stream, Process(folder, passed={keeper_store.SOCKET_NAME: stream.fileno()}) as process:
        assert process.wait() == 1
        assert "the socket that was passed is no UNIX socket for packets" in process.said()


AS_NOBODY = """
import os, socket, sys
from iommuctl.iommufd import keeper_wire as wire
os.setuid(65534)
client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
client.connect("\\0" + sys.argv[1])
print(wire.receive(client)[0], end=" and ")
try:
    wire.receive(client)
except EOFError:
    print("the end")
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_other_users_are_refused_and_that_is_logged(folder: Path, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        # A socket that anybody can reach, as a mistaken unit would make it.
        listening.bind("\0" + str(folder))
        listening.listen()
        with Process(folder, passed={keeper_store.SOCKET_NAME: listening.fileno()}) as process:
            asks = [sys.executable, "-P", "-S", "-c", AS_NOBODY, str(folder)]
            done = subprocess.run(asks, env={"PYTHONPATH": str(ROOT)}, capture_output=True, check=True, timeout=20)
            assert done.stdout == b"{'error': 'the keeper serves uid 0 alone', 'id': 'permission'} and the end\n"
            assert process.said() == "iommuctl keeper: refused uid 65534\n"


def test_descriptors_passed_to_another_process_are_not_taken(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"LISTEN_PID": "1", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "iommufd"}.items():
        monkeypatch.setenv(name, value)
    assert keeper_store.given() == (None, {}, None)
    assert not {"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} & set(os.environ)


def units() -> tuple[configparser.ConfigParser, configparser.ConfigParser]:
    parsers = [configparser.ConfigParser(strict=False, interpolation=None) for _ in range(2)]
    for parser, kind in zip(parsers, ("socket", "service"), strict=True):
        parser.optionxform = str  # type: ignore[assignment,method-assign]
        parser.read_string((UNITS / f"iommuctl-keeper.{kind}").read_text())
    return parsers[0], parsers[1]


def test_the_units_fit_the_keeper() -> None:
    activation, service = units()
    command = service["Service"]["ExecStart"].split()
    options = keeper._parse(command[command.index("iommuctl.iommufd.keeper") + 1 :])
    assert command[:3] == ["/usr/bin/python3", "-I", "-m"]
    assert activation["Socket"]["ListenSequentialPacket"] == f"{options.state}/{wire.SOCKET}"
    assert activation["Socket"]["FileDescriptorName"] == keeper_store.SOCKET_NAME
    assert int(service["Service"]["FileDescriptorStoreMax"]) == keeper_service.MOST_HELD + 1, "and the boot id"
    assert int(service["Service"]["LimitNOFILE"]) == keeper_service.MOST_HELD + keeper._OTHER_FILES
    assert service["Service"]["StateDirectory"] == Path(options.state).name


def test_systemd_finds_no_fault_in_the_units() -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        reason = "there is no systemd-analyze"
        if os.environ.get(REQUIRED) == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    files = sorted(str(path) for path in UNITS.iterdir())
    done = subprocess.run([analyze, "verify", *files], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    done = subprocess.run(
        [analyze, "security", "--offline=true", "--threshold=20", "--no-pager", str(UNITS / "iommuctl-keeper.service")],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
