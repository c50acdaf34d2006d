# SPDX-License-Identifier: Apache-2.0
"""The qtest client, against a server that is a few lines of text."""

import socket
from collections.abc import Iterator

import pytest

from tests.differential.qtest import Qtest, QtestError, clock_step, reading, writing


class Server:
    """The other end of a client: says what it is told to, and shows what it got."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        self.socket = theirs
        self.client = Qtest(ours, timeout=0.2)

    def says(self, text: str) -> None:
        self.socket.sendall(text.encode())

    def got(self) -> str:
        return self.socket.recv(4096).decode()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    with made.socket, made.client:
        yield made


def test_a_batch_is_sent_at_once_and_answered_in_order(server: Server) -> None:
    server.says("OK 0x0000000000000010\nOK\nOK 5\n")
    assert server.client.batch([reading(0x1000, 8), writing(0x20, 3, 4), clock_step(7)]) == [
        "0x0000000000000010",
        "",
        "5",
    ]
    assert server.got() == "readq 0x1000\nwritel 0x20 0x3\nclock_step 7\n"


def test_registers_and_ports(server: Server) -> None:
    server.says("OK 0xff\nOK\nOK 0x0012\nOK\n")
    assert server.client.read(0x10, 1) == 0xFF
    server.client.write(0x10, 0x1234, 2)
    assert server.client.port_in(0xCFC, 2) == 0x12
    server.client.port_out(0xCF8, 0x8000_0000, 4)
    assert server.got() == "readb 0x10\nwritew 0x10 0x1234\ninw 0xcfc\noutl 0xcf8 0x80000000\n"


def test_lines_about_interrupts_are_passed_over(server: Server) -> None:
    server.says("IRQ raise 3\nIRQ lower 3\nOK 0x1\n")
    assert server.client.read(0, 4) == 1


def test_an_answer_may_come_in_pieces(server: Server) -> None:
    server.says("OK 0x1")
    server.says("2\nOK")
    server.says("\n")
    assert server.client.batch([reading(0, 4), writing(0, 0, 4)]) == ["0x12", ""]


@pytest.mark.parametrize("answer", ["FAIL Unknown command 'readl'", "ERR", ""])
def test_a_refusal_names_the_request(answer: str, server: Server) -> None:
    server.says(f"{answer}\n")
    with pytest.raises(QtestError, match="readl 0x10") as error:
        server.client.read(0x10, 4)
    assert repr(answer) in str(error.value)


def test_silence_ends_in_an_error(server: Server) -> None:
    with pytest.raises(QtestError, match="does not answer: timed out"):
        server.client.read(0, 4)


def test_a_closed_connection_ends_in_an_error(server: Server) -> None:
    server.socket.close()
    with pytest.raises(QtestError, match="QEMU"):
        server.client.read(0, 4)


def test_a_line_without_end_is_not_read_for_ever() -> None:
    ours, theirs = socket.socketpair()
    client = Qtest(ours, timeout=5)
    with client, theirs:
        theirs.setblocking(False)
        client._received += b"x" * (1 << 20) + b"x"
        with pytest.raises(QtestError, match="line without end"):
            client.read(0, 4)
