"""Found by hostile peers (``make bench ARGS="hostile deaf_watchers"``): the system took megabytes for each watcher over
HTTP that never reads, so every change was written for it, seconds long, and every cancel waited for that."""

from __future__ import annotations

import contextlib
import fcntl
import socket
import struct
import sys

import pytest

from upload_server.doors.http.server import bind

# What was accepted for a connection and has not been sent yet (linux/sockios.h).
SIOCOUTQNSD = 0x894B


@pytest.mark.skipif(sys.platform != "linux", reason="how much is unsent can only be asked on Linux")
def test_little_is_taken_for_a_peer_that_does_not_read() -> None:
    with bind("127.0.0.1", 0) as listening:
        listening.setblocking(True)
        with socket.create_connection(listening.getsockname()):
            accepted, _ = listening.accept()
            with accepted:
                accepted.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    while True:
                        accepted.send(b"a" * 1000)
                unsent = struct.unpack("i", fcntl.ioctl(accepted, SIOCOUTQNSD, bytes(4)))[0]
    assert unsent < 64 * 1024
