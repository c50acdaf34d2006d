# SPDX-License-Identifier: Apache-2.0
"""The keeper as a process: what it holds, how it begins and ends, and that no client can bring it down."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from iommuctl.iommufd import keeper_wire as wire
from iommuctl.iommufd.keeper_service import MOST_CLIENTS
from tests.iommufd.keepers import (
    KEEPER,
    ROOT,
    Process,
    ask,
    connect,
    eventually,
    memory,
    running,
    running_for_a_client,
    text,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def keeper(folder: Path) -> Iterator[Process]:
    with running(folder) as process:
        yield process


def holds(connection: socket.socket) -> object:
    return ask(connection, ask="list", after="")[0]["names"]


def put(connection: socket.socket, name: str, content: bytes = b"") -> None:
    descriptor = memory(content)
    try:
        assert ask(connection, [descriptor], ask="put", name=name) == ({}, [])
    finally:
        os.close(descriptor)


def same_descriptors(keeper: Process, count: int) -> None:
    """What clients had is closed; the kernel and the keeper take a moment for it."""
    eventually(lambda: keeper.descriptors() == count)


def test_it_holds_descriptors_by_name(keeper: Process) -> None:
    before = keeper.descriptors()
    with connect(keeper.folder) as client:
        for name in ("iommufd", "vfio-0000:00:10.0", "memory-3"):
            put(client, name, name.encode())
        assert holds(client) == ["iommufd", "memory-3", "vfio-0000:00:10.0"]
        put(client, "memory-3", b"another")
    same_descriptors(keeper, before + 3)
    with connect(keeper.folder) as client:
        answer, descriptors = ask(client, ask="get", names=["memory-3", "nothing", "vfio-0000:00:10.0"])
        assert answer == {"missing": ["nothing"]}
        assert [text(one) for one in descriptors] == [b"another", b"vfio-0000:00:10.0"]
        assert ask(client, ask="drop", name="memory-3") == ({}, [])
        assert ask(client, ask="drop", name="memory-3") == ({}, [])
        assert holds(client) == ["iommufd", "vfio-0000:00:10.0"]
    same_descriptors(keeper, before + 2)


def test_a_list_goes_on_where_a_packet_ends(keeper: Process) -> None:
    names = sorted(f"{number:03}-".ljust(wire.MOST_NAME, "x") for number in range(40))
    with connect(keeper.folder) as client:
        for name in names:
            put(client, name)
        found: list[str] = []
        pages, more = 0, True
        while more:
            answer, _ = ask(client, ask="list", after=found[-1] if found else "")
            assert isinstance(answer["names"], list)
            found += answer["names"]
            more, pages = bool(answer["more"]), pages + 1
        assert (found, pages) == (names, 3)


def test_hello_tells_the_boot_id_and_the_process(keeper: Process) -> None:
    with connect(keeper.folder) as client:
        answer, _ = ask(client, ask="hello")
    assert answer["pid"] == keeper.pid
    assert len(bytes.fromhex(str(answer["boot"]))) == 16


BAD = {
    "not JSON": (b"hello", 0, "a packet is not JSON"),
    "not UTF-8": (b'{"ask": "\xff"}', 0, "a packet is not JSON"),
    "nested too deep": (b"[" * 4000, 0, "a packet is not JSON"),
    "a number": (b"9" * 4090, 0, "a packet is not a JSON object"),
    "not an object": (b'["hello"]', 1, "a packet is not a JSON object"),
    "too long": (b'{"ask": "hello", "more": "%s"}' % (b"x" * 4096), 2, "a packet has more than 4096 bytes"),
    "no request": (b"{}", 1, "no such request"),
    "another request": (b'{"ask": "give"}', 1, "no such request"),
    "a request that is no word": (b'{"ask": ["hello"]}', 1, "no such request"),
    "put without a descriptor": (b'{"ask": "put", "name": "a"}', 0, "put comes with one descriptor, not with 0"),
    "put with two": (b'{"ask": "put", "name": "a"}', 2, "put comes with one descriptor, not with 2"),
    "put with many": (b'{"ask": "put", "name": "a"}', 64, "put comes with one descriptor, not with 64"),
    "put with too many": (b'{"ask": "put", "name": "a"}', 90, "a packet has more than 64 descriptors, or there is no"),
    "no name": (b'{"ask": "put"}', 1, "a name has 1 to 255 characters"),
    "an empty name": (b'{"ask": "put", "name": ""}', 1, "a name has 1 to 255 characters"),
    "a long name": (b'{"ask": "put", "name": "%s"}' % (b"a" * 256), 1, "a name has 1 to 255 characters"),
    "a name with a slash": (b'{"ask": "put", "name": "a/b"}', 1, "a name has 1 to 255 characters"),
    "a name with an end of line": (b'{"ask": "put", "name": "a\\nb"}', 1, "a name has 1 to 255 characters"),
    "a name of the store": (b'{"ask": "put", "name": "+boot-0"}', 1, "a name has 1 to 255 characters"),
    "get without names": (b'{"ask": "get"}', 1, "get names 64 descriptors at most"),
    "get of a bad name": (b'{"ask": "get", "names": ["iommufd", 1]}', 0, "a name has 1 to 255 characters"),
    "get of too many": (b'{"ask": "get", "names": [%s"a"]}' % (b'"a",' * 64), 0, "get names 64 descriptors at most"),
    "list after a number": (b'{"ask": "list", "after": 1}', 0, "list tells the name to begin after"),
}


def test_bad_packets_are_answered_and_leave_nothing_open(keeper: Process) -> None:
    with connect(keeper.folder) as client:
        put(client, "iommufd", b"held")
        before = keeper.descriptors()
        for what, (packet, count, because) in BAD.items():
            descriptors = [memory(b"")] * count
            socket.send_fds(client, [packet], descriptors)
            answer, came = wire.receive(client)
            assert str(answer.get("error")).startswith(because), what
            assert (answer["id"], came) == ("usage", []), what
            assert keeper.descriptors() == before, what
            wire.close_all(descriptors[:1])
        assert holds(client) == ["iommufd"]


WORDS = st.sampled_from(["ask", "name", "names", "after", "hello", "put", "get", "drop", "list", "a", "b:c", "", "\n"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | WORDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=12,
)
REQUESTS = st.builds(
    lambda ask, rest: {**rest, "ask": ask},
    st.sampled_from(["hello", "put", "get", "drop", "list"]),
    st.fixed_dictionaries({}, optional={"name": VALUES, "names": VALUES | st.lists(WORDS), "after": VALUES}),
)
EMPTY = 8
"""Descriptors of a keeper that holds nothing: stdio, the pipe of signals, the folder, its lock, the socket."""
PACKETS = st.binary(min_size=1, max_size=5000) | (REQUESTS | VALUES).map(lambda value: json.dumps(value).encode())


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(packets=st.lists(st.tuples(PACKETS, st.integers(0, 3)), max_size=6))
def test_no_packet_brings_it_down(keeper: Process, packets: list[tuple[bytes, int]]) -> None:
    with connect(keeper.folder) as client:
        for packet, count in packets:
            descriptors = [memory(b"")] * count
            socket.send_fds(client, [packet], descriptors) if count else client.send(packet)
            wire.close_all(descriptors[:1])
            answer, came = wire.receive(client)
            assert isinstance(answer, dict)
            wire.close_all(came)
        names = holds(client)
        assert isinstance(names, list)
        for name in names:
            assert ask(client, ask="drop", name=name) == ({}, [])
        assert keeper.descriptors() <= EMPTY + 2, "this client's, and perhaps still the one before"


def test_silent_clients_make_room_for_others(keeper: Process) -> None:
    silent = [connect(keeper.folder) for _ in range(3 * MOST_CLIENTS)]
    with connect(keeper.folder) as client:
        assert ask(client, ask="hello")[0]["pid"] == keeper.pid
        assert keeper.descriptors() < MOST_CLIENTS + 10
    for one in silent:
        one.close()


def test_clients_are_bounded_in_number(keeper: Process) -> None:
    clients = [connect(keeper.folder) for _ in range(MOST_CLIENTS)]
    for client in clients:
        ask(client, ask="hello")
    with connect(keeper.folder) as refused:
        answer, _ = wire.receive(refused)
        assert answer == {"error": f"the keeper has {MOST_CLIENTS} clients already", "id": "no-room"}
        with pytest.raises(EOFError):
            wire.receive(refused)
    clients.pop().close()
    with connect(keeper.folder) as client:
        ask(client, ask="hello")
    for one in clients:
        one.close()


DIES = """
import os, signal, socket, sys
from iommuctl.iommufd import keeper_wire as wire
opened = wire.open_folder(sys.argv[1])
for point in range(7):
    if os.fork():
        os.wait()
        continue
    if point:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        connection.connect(wire.address(opened))
    for step in range(1, point):
        if step == 1:
            wire.send(connection, {"ask": "hello"})
        elif step == 2:
            wire.send(connection, {"ask": "put", "name": "mine"}, [opened])
        elif step == 3:
            wire.send(connection, {"ask": "get", "names": ["iommufd"] * 64})
        elif step == 4:
            wire.receive(connection)
        else:
            connection.send(b"{")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_clients_can_die_at_any_point(keeper: Process) -> None:
    with connect(keeper.folder) as client:
        put(client, "iommufd", b"held")
        put(client, "mine")
        before = keeper.descriptors()
        subprocess.run(
            [sys.executable, "-P", "-S", "-c", DIES, keeper.folder],
            env={"PYTHONPATH": str(ROOT)},
            check=True,
            timeout=20,
        )
        same_descriptors(keeper, before)
        (descriptor,) = ask(client, ask="get", names=["iommufd"])[1]
        assert text(descriptor) == b"held"


def ask_on_and_on(connection: socket.socket) -> None:
    for _ in range(100_000):
        wire.send(connection, {"ask": "get", "names": ["iommufd"] * 64})


def test_who_does_not_read_answers_is_left(keeper: Process) -> None:
    with connect(keeper.folder) as client:
        put(client, "iommufd")
        before = keeper.descriptors()
        with connect(keeper.folder) as deaf:
            deaf.settimeout(5)
            with pytest.raises(ConnectionError):
                ask_on_and_on(deaf)
        same_descriptors(keeper, before)
        assert holds(client) == ["iommufd"]


def test_it_is_full_where_the_limit_of_open_files_is_low(folder: Path) -> None:
    with running(folder, prelude="ulimit -n 266") as keeper, connect(folder) as client:
        for number in range(10):
            put(client, f"memory-{number}")
        with open(os.devnull) as null:
            answer, _ = ask(client, [null.fileno()], ask="put", name="memory-10")
        assert answer == {"error": "the keeper holds 10 descriptors already", "id": "no-room"}
        put(client, "memory-9", b"in its place")
        assert keeper.descriptors() < 20


def test_stop_closes_everything_and_ends(keeper: Process) -> None:
    with connect(keeper.folder) as client:
        put(client, "iommufd")
        assert ask(client, ask="stop") == ({}, [])
        with pytest.raises(EOFError):
            wire.receive(client)
        assert not (keeper.folder / wire.SOCKET).exists()
        with running(keeper.folder) as second:
            assert second.pid != keeper.pid
    assert keeper.wait() == 0


def test_nothing_is_taken_after_a_stop(keeper: Process) -> None:
    """A put that was answered and then lost would be a lie."""
    with connect(keeper.folder) as first, connect(keeper.folder) as second, open(os.devnull) as null:
        ask(first, ask="hello")
        ask(second, ask="hello")
        keeper.kill(signal.SIGSTOP)
        wire.send(second, {"ask": "put", "name": "iommufd"}, [null.fileno()])
        wire.send(first, {"ask": "stop"})
        keeper.kill(signal.SIGCONT)
        assert wire.receive(first) == ({}, [])
        with pytest.raises((EOFError, ConnectionError)):
            wire.receive(second)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it(keeper: Process, number: signal.Signals) -> None:
    keeper.kill(number)
    assert keeper.wait() == 0
    assert not (keeper.folder / wire.SOCKET).exists()
    assert keeper.said() == ""


def test_the_end_of_a_terminal_does_not_end_it(keeper: Process) -> None:
    keeper.kill(signal.SIGHUP)
    with connect(keeper.folder) as client:
        assert ask(client, ask="hello")[0]["pid"] == keeper.pid


def test_it_ends_when_it_is_idle(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    with Process(folder, "--idle", "0.05") as keeper:
        assert keeper.wait() == 0
        assert os.listdir(folder) == ["keeper.lock"]


def test_it_is_not_idle_while_somebody_is_connected_or_something_is_held(folder: Path) -> None:
    with running_for_a_client(folder, "--idle", "0.05") as (keeper, client):
        ask(client, ask="hello")
        time.sleep(0.2)
        put(client, "iommufd", b"held")
        client.close()
        time.sleep(0.2)
        with connect(folder) as another:
            assert ask(another, ask="hello")[0]["pid"] == keeper.pid
            assert ask(another, ask="drop", name="iommufd") == ({}, [])
        assert keeper.wait() == 0


def test_what_nobody_can_ask_for_any_more_is_not_held(folder: Path) -> None:
    with running_for_a_client(folder, "--idle", "0.05") as (keeper, client):
        put(client, "iommufd")
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
        assert os.waitpid(keeper.pid, os.WNOHANG) == (0, 0)
        client.close()
        assert keeper.wait() == 0


def test_a_folder_has_one_keeper(keeper: Process) -> None:
    with Process(keeper.folder) as second:
        assert second.wait() == wire.RUNS_ALREADY
        assert second.said() == "iommuctl keeper: another keeper is at work for this folder\n"
    with connect(keeper.folder) as client:
        assert ask(client, ask="hello")[0]["pid"] == keeper.pid


def test_what_a_killed_keeper_left_is_replaced(keeper: Process) -> None:
    with connect(keeper.folder) as client:
        boot = ask(client, ask="hello")[0]["boot"]
    keeper.kill(signal.SIGKILL)
    keeper.wait()
    assert (keeper.folder / wire.SOCKET).exists()
    with Process(keeper.folder), connect(keeper.folder) as client:
        assert ask(client, ask="hello")[0]["boot"] != boot


def test_its_files_are_private(keeper: Process) -> None:
    modes = {path.name: path.stat().st_mode & 0o777 for path in keeper.folder.iterdir()}
    assert modes == {wire.SOCKET: 0o600, "keeper.lock": 0o600}


def test_a_folder_that_others_can_enter_is_refused(folder: Path) -> None:
    folder.mkdir(mode=0o750)
    with Process(folder) as keeper:
        assert keeper.wait() == 1
        assert keeper.said() == (
            f"iommuctl keeper: {folder} is not private: its mode is 0750 and its owner uid {os.geteuid()}; "
            f"mode 0700 and uid {os.geteuid()} are needed\n"
        )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_another_user_is_refused(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    os.chown(folder, 65534, -1)
    with Process(folder) as keeper:
        assert keeper.wait() == 1
        assert "its mode is 0700 and its owner uid 65534" in keeper.said()


def test_paths_can_be_longer_than_an_address(tmp_path: Path) -> None:
    with running(tmp_path / ("x" * 200)) as keeper, connect(keeper.folder) as client:
        assert ask(client, ask="hello")[0]["pid"] == keeper.pid


@pytest.mark.parametrize(
    "arguments", [[], ["--state"], ["--state", "x", "--idle", "0"], ["--state", "x", "--idle", "nan"], ["state"]]
)
def test_other_command_lines_are_refused(arguments: list[str]) -> None:
    done = subprocess.run([*KEEPER, *arguments], capture_output=True, text=True, check=False, cwd=ROOT, timeout=20,
                          env={"PYTHONPATH": str(ROOT)})  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(("iommuctl keeper: usage: ", "iommuctl keeper: --idle takes seconds"))


def test_it_is_light() -> None:
    code = "import sys, iommuctl.iommufd.keeper; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-P", "-S", "-c", code], env={"PYTHONPATH": str(ROOT)}, capture_output=True,
                          text=True, check=True, timeout=20)  # fmt: skip
    heavy = {"argparse", "ctypes", "dataclasses", "logging", "pathlib", "pluggy", "sqlite3", "subprocess", "typer"}
    assert not heavy & {name.split(".")[0] for name in done.stdout.split()}
    ours = {name for name in done.stdout.split() if name.startswith("iommuctl")}
    parts = ("keeper", "keeper_service", "keeper_store", "keeper_wire")
    assert ours == {"iommuctl", "iommuctl.iommufd", *(f"iommuctl.iommufd.{part}" for part in parts)}
