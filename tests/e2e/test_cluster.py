"""Three servers on one PostgreSQL and one folder: each fault that strikes one or all of them is over when it ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from support.cluster import Cluster, Node

pytestmark = pytest.mark.timeout(180)

SECONDS = 30.0


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with Cluster(tmp_path / "cluster", cuttable=True) as running:
        yield running


def readiness(node: Node) -> int:
    """Return the status of a server that was asked whether it is ready, 0 when it did not answer."""
    try:
        return httpx.get(f"http://127.0.0.1:{node.http_port}/readyz", timeout=5).status_code
    except httpx.TransportError:
        return 0


def wait(nodes: list[Node], status: int) -> None:
    deadline = time.monotonic() + SECONDS
    while (found := [readiness(node) for node in nodes]) != [status] * len(nodes):
        assert time.monotonic() < deadline, found
        time.sleep(0.05)


def test_every_fault_is_over_when_it_ends(cluster: Cluster) -> None:
    first, *others = cluster.nodes
    wait(cluster.nodes, 200)

    cluster.restart_database()
    wait(cluster.nodes, 200)

    cluster.postgres.terminate_backends(cluster.sessions())
    wait(cluster.nodes, 200)

    faults: list[tuple[Callable[[], object], int, Callable[[], object]]] = [
        (first.cut_off, 503, first.heal),
        (lambda: first.cut_off(up=False), 503, first.heal),
        (first.freeze, 0, first.thaw),
        (first.kill, 0, first.start),
    ]
    for strike, status, end in faults:
        strike()
        wait([first], status)
        wait(others, 200)
        end()
        wait(cluster.nodes, 200)

    assert [node.terminate() for node in cluster.nodes] == [0, 0, 0]
