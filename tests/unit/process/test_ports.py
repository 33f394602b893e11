"""How a port is taken, and what is said of one that cannot be."""

from __future__ import annotations

import re
import socket

import pytest

from upload_server.process.ports import PortUnavailable, listen, reserve


def test_a_port_in_use_names_the_option_that_chose_it() -> None:
    with listen("127.0.0.1", 0, "--some-port") as taken:
        port = taken.getsockname()[1]
        says = f"cannot listen on 127.0.0.1 port {port}: Address already in use; choose another port with --some-port"
        with pytest.raises(PortUnavailable, match=f"^{re.escape(says)}$"):
            listen("127.0.0.1", port, "--some-port")


@pytest.mark.parametrize("host", ["192.0.2.1", "[2001:db8::1]"])
def test_an_address_of_another_machine_is_told_as_such(host: str) -> None:
    with pytest.raises(
        PortUnavailable, match=f"^cannot listen on {re.escape(host)} .*choose an address of this machine"
    ):
        listen(host, 0, "--some-port")


@pytest.mark.parametrize("host", ["::1%nowhere", "a" * 64, "a..b"])
def test_a_host_that_is_none_is_told_as_such(host: str) -> None:
    with pytest.raises(PortUnavailable, match=f"^cannot listen on {re.escape(host)}: .+; choose another address"):
        listen(host, 0, "--some-port")


def test_ports_are_never_shared() -> None:
    with listen("127.0.0.1", 0, "--some-port") as sock:
        assert not sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)


def test_a_reserved_port_is_for_those_who_share_it_whether_one_listens_or_none() -> None:
    with reserve("127.0.0.1", 0, "--some-port") as kept:
        port = kept.getsockname()[1]

        def assert_closed_to_others() -> None:
            for take in (listen, reserve):
                with pytest.raises(PortUnavailable, match="Address already in use"):
                    take("127.0.0.1", port, "--some-port")

        assert_closed_to_others()
        with (
            listen("127.0.0.1", port, "--some-port", shared=True) as one,
            listen("127.0.0.1", port, "--some-port", shared=True) as two,
        ):
            assert_closed_to_others()
            # All connections of sixty on one side: once in 10^17 runs. None goes to the socket that keeps the port.
            clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(60)]
            spread = [accepted(sock) for sock in (one, two)]
            assert all(spread)
            assert sum(map(len, spread)) == 60
            for ended in (*clients, *spread[0], *spread[1]):
                ended.close()
        assert_closed_to_others()
    with listen("127.0.0.1", port, "--some-port"):
        pass


def accepted(sock: socket.socket) -> list[socket.socket]:
    found = []
    try:
        while True:
            found.append(sock.accept()[0])
    except BlockingIOError:
        return found


def test_a_port_in_use_cannot_be_reserved() -> None:
    with listen("127.0.0.1", 0, "--some-port") as taken, pytest.raises(PortUnavailable, match="Address already in use"):
        reserve("127.0.0.1", taken.getsockname()[1], "--some-port")
