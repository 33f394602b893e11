"""Threads that move bytes stand back for those that a cancel runs on."""

from __future__ import annotations

import os
import sys
import threading

import pytest

from unit.ingest.world import MIB, World
from upload_server.ingest.parts import Threads


@pytest.mark.skipif(sys.platform != "linux", reason="thread priorities are Linux's")
async def test_threads_of_bytes_stand_back_and_no_other_does() -> None:
    threads = Threads(1, 1)
    mine = (os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
    for pool in (threads.workers, threads.waiters):
        policy = pool.submit(lambda: os.sched_getscheduler(0)).result()
        nice = pool.submit(lambda: os.getpriority(os.PRIO_PROCESS, threading.get_native_id())).result()
        assert (policy, nice) == (os.SCHED_BATCH, mine[1] + 5)
    assert (os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, threading.get_native_id())) == mine
    threads.shutdown(wait=True)


async def test_a_disk_that_is_slow_to_sync_holds_up_no_write(world: World) -> None:
    ids = [await world.initiate(100 * MIB) for _ in range(3)]
    uploads = [await world.open(file_id) for file_id in ids]
    world.sink.syncing.close()
    for upload in uploads:
        await upload.write(b"x" * MIB)
        upload.close_soon()
        await world.sink.syncing.somebody_waits()
    other = await world.open(await world.initiate(100 * MIB))
    world.observed.took.clear()
    await other.write(b"y" * MIB)
    await world.observed.took.wait()
    world.sink.syncing.open()
    for upload in [*uploads, other]:
        await upload.close()
        assert upload.durable == MIB
