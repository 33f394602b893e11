"""Processes that write to one SQLite file take turns, and fill their groups while they wait."""

from __future__ import annotations

import asyncio
import fcntl
import os
import struct
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from contract.store.kit import command, pending
from support.stores import url_in
from upload_server.store.lock import lock_file_of
from upload_server.store.open import store_at
from upload_server.store.options import StoreOptions
from upload_server.store.sqlite.turn import Turn
from upload_server.store.values import Commit


@pytest.fixture
def lock_file(tmp_path: Path) -> Path:
    path = tmp_path / "db.lock"
    path.touch()
    return path


def wait_until_next(lock_file: Path) -> None:
    """Wait until somebody waits for the turn."""
    with lock_file.open("r+b") as file:
        deadline = time.monotonic() + 20
        while True:
            lock = struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, 0, 1, 0)
            kind, *_ = struct.unpack("hhqqi", fcntl.fcntl(file, fcntl.F_OFD_GETLK, lock))
            if kind != fcntl.F_UNLCK:
                return
            assert time.monotonic() < deadline
            time.sleep(0.001)


def test_who_has_just_written_stands_behind_who_waits(lock_file: Path) -> None:
    mine, other = Turn(lock_file), Turn(lock_file)
    for _ in range(50):
        order: list[str] = []

        def write(order: list[str] = order) -> None:
            with other:
                order.append("other")

        with mine:
            waiting = threading.Thread(target=write)
            waiting.start()
            wait_until_next(lock_file)
        with mine:
            order.append("mine")
        waiting.join(20)
        assert order == ["other", "mine"]


async def test_writes_that_come_while_others_write_go_into_one_transaction(tmp_path: Path) -> None:
    place = store_at(url_in(tmp_path))
    lock = await asyncio.to_thread(place.share)
    store = await place.open(StoreOptions(shared=True))
    groups: list[Sequence[Commit]] = []
    store.on_commit(groups.append)
    files = [await pending(store) for _ in range(4)]
    groups.clear()

    lock_file = lock_file_of(tmp_path / "upload.sqlite3")
    with Turn(lock_file):
        cancels = [asyncio.ensure_future(store.cancel_file(files[0].file_id, command()))]
        await asyncio.to_thread(wait_until_next, lock_file)
        cancels += [asyncio.ensure_future(store.cancel_file(file.file_id, command())) for file in files[1:]]
        await asyncio.sleep(0)
        assert not any(cancel.done() for cancel in cancels)
    await asyncio.gather(*cancels)

    assert [len(commits) for commits in groups] == [4]
    await store.close()
    assert lock is not None
    lock.release()
