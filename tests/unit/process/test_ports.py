"""How a port is taken, and what is said of one that cannot be."""

from __future__ import annotations

import re
import socket

import pytest

from upload_server.process.ports import PortUnavailable, listen


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
