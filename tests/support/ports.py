"""Ports of loopback for a program that is started later, or started again on the same one."""

from __future__ import annotations

import os
import random
import socket
from pathlib import Path

_LOWEST = 10_240
# Not `random` itself, whose seed a test may set: two workers would choose the same.
_CHOICE = random.SystemRandom()
_GIVEN: set[int] = set()


def free_port() -> int:
    """Return a port that was free a moment ago, and that no other call gets while its program is not started yet.

    It lies below those that the kernel hands out, in a share of them that only this worker of the tests chooses from.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    while True:
        port = _CHOICE.randrange(_LOWEST + worker, _first_ephemeral(), workers)
        if port in _GIVEN:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _GIVEN.add(port)
        return port


def _first_ephemeral() -> int:
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    return first if first > _LOWEST + 1_000 else 32_768
