"""The seconds in which a service ran on a store: they go on over restarts, and are never more than passed."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import dataclass
from pathlib import Path

from contract.store.kit import pending, served_for
from upload_server.store.commands.served import ServedClock
from upload_server.store.open import open_store


@dataclass
class Steady:
    """A steady clock that a test moves."""

    seconds: float = 1000.0

    def __call__(self) -> float:
        return self.seconds


def test_it_goes_on_from_what_was_kept() -> None:
    steady = Steady()
    clock = ServedClock(50.0, steady)
    assert clock.read() == 50.0
    steady.seconds += 30
    assert clock.read() == 80.0
    steady.seconds += 0.5
    assert clock.read() == 80.5


def test_a_process_that_was_frozen_served_nobody() -> None:
    steady = Steady()
    clock = ServedClock(0.0, steady)
    steady.seconds += 25 * 3600
    assert clock.read() == 60.0
    steady.seconds += 1
    assert clock.read() == 61.0


async def test_it_is_kept_over_a_stop(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/upload.db"
    store = await open_store(url)
    # Nothing is written meanwhile.
    await served_for(store, 0.05)
    served = store.served
    await store.close()

    again = await open_store(url)
    assert served <= again.served < served + 10
    await again.close()


async def test_after_a_crash_it_is_what_the_last_transaction_kept(tmp_path: Path) -> None:
    store = await open_store(f"sqlite:///{tmp_path}/upload.db")
    before = store.served
    await served_for(store, 0.05)
    file = await pending(store)
    kept = store.served
    await served_for(store, 0.05)

    def crash() -> None:
        for suffix in ("", "-wal"):
            shutil.copyfile(tmp_path / f"upload.db{suffix}", tmp_path / f"crashed.db{suffix}")

    await asyncio.to_thread(crash)
    again = await open_store(f"sqlite:///{tmp_path}/crashed.db")
    found = again.served
    assert await again.get_file(file.file_id) == file
    await again.close()

    assert before + 0.05 <= found <= kept + 0.05
    await store.keep_served()
    await asyncio.to_thread(crash)
    again = await open_store(f"sqlite:///{tmp_path}/crashed.db")
    assert again.served >= kept + 0.05
    await again.close()
    await store.close()
