"""Decides which connection is cut when peers do not read what they are answered, and it becomes too much.

Must not know HTTP.
"""

from __future__ import annotations

import asyncio
from typing import Final

# A connection may have so much written and not taken by its peer before it counts; then no next request is begun on it.
HIGH_WATER_BYTES: Final = 16 * 1024
_MOST_BYTES: Final = 64 * 1024 * 1024


class Untaken:
    """What peers together have not read, in bytes. Beyond the bound the one that has not read for longest is cut."""

    def __init__(self, most_bytes: int = _MOST_BYTES) -> None:
        self._left = most_bytes
        # Those that do not read, in the order in which they stopped.
        self._held: dict[asyncio.Transport, int] = {}

    def hold(self, transport: asyncio.Transport) -> None:
        """Count what is written to a connection and not taken; little more is written before it is taken."""
        self._held[transport] = size = transport.get_write_buffer_size()
        self._left -= size
        while self._left < 0:
            longest = next(iter(self._held))
            self.release(longest)
            longest.abort()

    def release(self, transport: asyncio.Transport) -> None:
        """Count it no more: the peer has read, or the connection is lost. Safe to call twice."""
        self._left += self._held.pop(transport, 0)
