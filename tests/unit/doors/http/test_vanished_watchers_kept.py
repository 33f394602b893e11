"""Found by ``tests/robustness/faults/test_black_holes.py``: a watch over HTTP whose peer had vanished was kept for a
quarter of an hour, since nothing bounded what TCP sends in vain."""

from __future__ import annotations

import socket

import pytest

from upload_server.doors.http.server import VANISHED_SECONDS, bind


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="this system has no such bound")
def test_a_connection_to_a_vanished_peer_is_bounded() -> None:
    with bind("127.0.0.1", 0) as listening:
        listening.setblocking(True)
        with socket.create_connection(listening.getsockname()):
            accepted, _ = listening.accept()
            with accepted:
                assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == VANISHED_SECONDS * 1000
                assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
