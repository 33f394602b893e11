"""Measures the ingest against a plain loop that writes, hashes and syncs alike.

``python tests/unit/ingest/throughput.py`` runs it.

Quote ratios of one run only: absolute figures move with the machine.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from unit.ingest.world import CALLER, KIB, MIB, World, open_world

SIZE = 1024 * MIB
SYNC_BYTES = 8 * MIB
ROUNDS = 3


def plain(path: Path, chunk: bytes) -> float:
    """Seconds of one thread that writes, hashes, and syncs each 8 MiB."""
    started = time.perf_counter()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    digest, unsynced = hashlib.sha256(), 0
    for _ in range(SIZE // len(chunk)):
        os.write(descriptor, chunk)
        digest.update(chunk)
        unsynced += len(chunk)
        if unsynced >= SYNC_BYTES:
            os.fdatasync(descriptor)
            unsynced = 0
    os.fdatasync(descriptor)
    os.close(descriptor)
    seconds = time.perf_counter() - started
    path.unlink()
    return seconds


async def through_ingest(world: World, chunk: bytes) -> float:
    file_id = await world.initiate(SIZE)
    started = time.perf_counter()
    upload = await world.open(file_id)
    for _ in range(SIZE // len(chunk)):
        await upload.write(chunk)
    await upload.commit("", CALLER)
    await upload.close()
    seconds = time.perf_counter() - started
    await asyncio.to_thread(world.sink.remove, file_id)
    return seconds


async def cancel_latency(world: World) -> float:
    """Seconds from the signal until nothing touches the file any more, at full speed."""
    file_id = await world.initiate(SIZE)
    upload = await world.open(file_id)
    chunk = os.urandom(256 * KIB)

    async def sending() -> None:
        while True:
            await upload.write(chunk)

    task = asyncio.create_task(sending())
    await upload.wait_durable(0)
    await world.cancel(file_id)
    started = time.perf_counter()
    await world.ingest.wait_closed(file_id)
    seconds = time.perf_counter() - started
    await asyncio.wait([task])
    task.exception()
    await upload.close()
    await asyncio.to_thread(world.sink.remove, file_id)
    return seconds


async def small_files(world: World, count: int = 500) -> float:
    """Files of 1 KiB a second, 32 at a time: open, write, commit, close."""
    _, ids = await world.initiate_batch([KIB] * count)
    places = asyncio.Semaphore(32)

    async def one(file_id: str) -> None:
        async with places:
            upload = await world.open(file_id)
            await upload.write(b"x" * KIB)
            await upload.commit("", CALLER)
            await upload.close()

    started = time.perf_counter()
    await asyncio.gather(*(one(file_id) for file_id in ids))
    return count / (time.perf_counter() - started)


async def main(folder: Path) -> None:
    say = sys.stdout.write
    async with open_world(folder / "node") as world:
        for kib in (64, 256, 1024):
            chunk = os.urandom(kib * KIB)
            pairs = []
            for _ in range(ROUNDS):
                loop_seconds = await asyncio.to_thread(plain, folder / "plain", chunk)
                pairs.append((loop_seconds, await through_ingest(world, chunk)))
            ratio = statistics.median(loop / ours for loop, ours in pairs)
            loop_rate, our_rate = (SIZE / 1e6 / statistics.median(side) for side in zip(*pairs, strict=True))
            say(f"{kib:5} KiB: plain loop {loop_rate:5.0f} MB/s, ingest {our_rate:5.0f} MB/s, ratio {ratio:.2f}\n")
        latencies = sorted([await cancel_latency(world) for _ in range(20)])
        say(f"signal to let go: median {latencies[10] * 1e3:.1f} ms, worst of 20 {latencies[-1] * 1e3:.1f} ms\n")
        say(f"files of 1 KiB: {await small_files(world):.0f} a second\n")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        asyncio.run(main(Path(name)))
