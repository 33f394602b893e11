"""Decides how nodes of one machine tell each other that there is something to look at: by a datagram without content.

Must not know what there is. A datagram may be lost, or come from anybody: nothing but a look follows it.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterable


def _address_of(node_id: str) -> str:
    # In Linux's abstract namespace: it goes with its socket, and needs no place on a disk.
    return f"\0upload-server/{node_id}"


class SqliteBell:
    """The bell of one node; lives on one event loop. Where a system has no such sockets it is silent."""

    def __init__(self, node_id: str, rung: Callable[[], None]) -> None:
        """``rung`` is called on the event loop when another node has rung; it must not block or raise."""
        self._rung = rung
        self._socket: socket.socket | None = None
        own = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        own.setblocking(False)
        try:
            own.bind(_address_of(node_id))
        except OSError:
            own.close()
        else:
            self._socket = own
            asyncio.get_running_loop().add_reader(own, self._hear)

    def ring(self, node_ids: Iterable[str]) -> None:
        """Ring at other nodes; never waits or raises."""
        if self._socket is not None:
            for node_id in node_ids:
                # It has gone, or has rings enough.
                with contextlib.suppress(OSError):
                    self._socket.sendto(b"", _address_of(node_id))

    def _hear(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._socket is not None:
                self._socket.recv(1)
                self._rung()

    def close(self) -> None:
        """Fall silent. Safe to call twice."""
        own, self._socket = self._socket, None
        if own is not None:
            asyncio.get_running_loop().remove_reader(own)
            own.close()
