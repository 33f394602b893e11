"""Ports of loopback for a program that is started later, or started again on the same one."""

from __future__ import annotations

import random
import socket
from pathlib import Path

_LOWEST = 10_240
# Not `random` itself, whose seed a test may set: two workers would choose the same.
_CHOICE = random.SystemRandom()


def free_port() -> int:
    """Return a port that was free a moment ago, below those that the kernel hands out: to no connection meanwhile."""
    while True:
        port = _CHOICE.randrange(_LOWEST, _first_ephemeral())
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def _first_ephemeral() -> int:
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    return first if first > _LOWEST + 1_000 else 32_768
