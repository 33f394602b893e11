"""Under hostile peers cancels go on, memory keeps within bounds, and afterwards nothing is left of them."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path

import pytest

from faults.attackers import ATTACKS
from faults.vitals import come_to_rest, vitals
from prove.clients import Connections
from support.process import ServerProcess, StartServer

pytestmark = pytest.mark.timeout(120)

_SECONDS = 2.0
_CANCELS = 100
# The goal is 3 times; a machine that is busy otherwise, or has as many cores as attackers, is slower all by itself.
_MOST_TIMES = 40.0
_MOST_SECONDS = 1.0
_MOST_MEMORY = 200 * 2**20


async def cancel_times(clients: Connections, seconds: float) -> list[float]:
    """Cancel file after file, one in flight, evenly over the time; returns how long each took."""
    took = []
    for _ in range(_CANCELS):
        made = await clients.doors[0].call("InitiateUpload", filename="a", size_bytes=10)
        started = time.perf_counter()
        await clients.doors[0].call("CancelFile", file_id=made["file"]["file_id"])
        took.append(time.perf_counter() - started)
        await asyncio.sleep(seconds / _CANCELS - min(took[-1], seconds / _CANCELS))
    return sorted(took)


def p99(took: list[float]) -> float:
    return took[int(len(took) * 0.99)]


async def attacked(server: ServerProcess, name: str, file_id: str) -> asyncio.subprocess.Process:
    """Start an attack in a process of its own, which must not take our processor away."""
    script = str(Path(__file__).with_name("attackers.py"))
    arguments = [name, str(server.grpc_port), str(server.http_port), str(_SECONDS), file_id]
    process = await asyncio.create_subprocess_exec(
        sys.executable, script, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    await asyncio.sleep(0.5)
    return process


@pytest.mark.parametrize("name", ATTACKS)
async def test_cancels_go_on_under(name: str, start_server: StartServer) -> None:
    server = start_server("--max-websockets", "50", "--websocket-grace", "0.2", "--idle-timeout", "2")
    clients = Connections(server)
    try:
        made = await clients.doors[0].call("InitiateUpload", filename="a", size_bytes=10_000_000)
        await cancel_times(clients, 0.1)
        quiet = p99(await cancel_times(clients, 0.6))
        baseline = await vitals(server)
        attack = await attacked(server, name, made["file"]["file_id"])
        under = p99(await cancel_times(clients, _SECONDS))
        said, complaints = await attack.communicate()
        rest = await come_to_rest(server, baseline, seconds=40, spare=12)
    finally:
        await clients.close()

    struck = json.loads(said) if said else {}
    print(
        f"{name}: {struck}; p99 of cancel {quiet * 1000:.1f} ms quiet, {under * 1000:.1f} ms under attack "
        f"({under / quiet:.1f} times); memory {baseline.rss / 2**20:.0f} to {rest.rss / 2**20:.0f} MiB"
    )
    assert attack.returncode == 0, complaints.decode()
    assert sum(struck.values()) >= 40
    assert under < max(_MOST_SECONDS, quiet * _MOST_TIMES)
    assert rest.rss - baseline.rss < _MOST_MEMORY
    assert [line for line in server.log if line.get("level") == "critical"] == []
