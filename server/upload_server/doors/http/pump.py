"""Decides how a long body gets past the event loop: a thread reads it from the socket, which is lent while it has some.

Must not know whose bytes they are. Where a thread finds no more, the transport reads on: it alone waits for a sender
that is slow, and sees the end of a connection. So a thread never waits for a sender.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

# In the scope of a request with a long body: how its door borrows the socket.
LEND: Final = "upload_server.lend"
# A socket is lent for so much of a body or more.
LEAST_BYTES: Final = 128 * 1024
# Sockets lent at once, each with a descriptor of its own; more than threads can read from.
MOST_LENT: Final = 32


class LentSocket:
    """What is still to come of one body. ``with`` it on the event loop; meanwhile one thread may read."""

    def __init__(self, descriptor: int, left: int, give_back: Callable[[int], None]) -> None:
        """``left``: bytes of the body. ``give_back`` hears how many were read. Raises OSError without a descriptor."""
        self.left = self._lent = left
        # Its own: the transport may close the connection while a thread reads, and the next one gets the same number.
        self._descriptor = os.dup(descriptor)
        self._give_back = give_back
        self._lock = threading.Lock()
        _lent.add(self)

    def read_into(self, buffer: bytearray) -> int:
        """Fill a buffer with bytes of the body that are there; returns how many, 0 when there are none.

        Never waits. There are none either behind the body, after the end of the connection, and once the block is over.
        """
        with self._lock:
            try:
                count = os.readv(self._descriptor, [memoryview(buffer)[: self.left]])
            except OSError:
                # Nothing is there (EAGAIN), or the connection is broken, which the transport will see.
                return 0
            self.left -= count
            return count

    def revoke(self) -> None:
        """Let no thread read on. Safe to call twice."""
        with self._lock:
            descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
            _lent.remove(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.revoke()
        self._give_back(self._lent - self.left)


Lend = Callable[[], LentSocket | None]
# Those that hold a descriptor.
_lent: set[LentSocket] = set()


def lend(descriptor: int, left: int, give_back: Callable[[int], None]) -> LentSocket | None:
    """Lend a socket, unless too many are lent or the process has no descriptor left."""
    if len(_lent) >= MOST_LENT:
        return None
    try:
        return LentSocket(descriptor, left, give_back)
    except OSError:
        return None
