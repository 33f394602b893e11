"""A process that uses a store until it is killed: prints what was answered, one JSON line each.

Run as ``python driver.py load|cancel <database-url> …``; only the tests run it.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from upload_server.domain.caller import Caller
from upload_server.domain.errors import UploadError
from upload_server.domain.states import FileSpec, Source
from upload_server.store.open import open_store
from upload_server.store.protocol import Store
from upload_server.store.values import Command


def say(**fields: Any) -> None:
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


def command(method: str, request_id: str) -> Command:
    return Command(Caller(Source.GRPC), method, datetime.now(UTC), "", request_id, b"f")


async def one_file(store: Store, name: str, chance: random.Random) -> None:
    """Take a file through its life, and tell each answer as soon as it is there."""
    file_id = f"file-{name}"
    made = await store.initiate_upload(FileSpec(name, 3), file_id, command("InitiateUpload", name))
    say(file=file_id, status="pending", revision=made.answer.revision)
    if chance.random() < 0.5:
        claim = (await store.claim(file_id, 0, command("UploadFile", ""))).answer.file
        say(file=file_id, status="uploading", revision=claim.revision)
        if chance.random() < 0.5:
            await store.record_progress(file_id, claim.fence, 2, datetime.now(UTC))
            say(file=file_id, status="uploading", revision=claim.revision, bytes_received=2)
        if chance.random() < 0.5:
            done = (await store.complete(file_id, claim.fence, "ab" * 32, 3, command("UploadFile", ""))).answer
            say(file=file_id, status="completed", revision=done.revision)
            return
    cancelled = (await store.cancel_file(file_id, command("CancelFile", name))).answer
    say(file=file_id, status="cancelled", cancelled_at=cancelled.cancelled_at.isoformat(), request_id=name)


async def one_batch(store: Store, name: str) -> None:
    specs, ids = [FileSpec("a", 1)] * 40, [f"file-{name}-{index}" for index in range(40)]
    await store.initiate_batch(specs, f"batch-{name}", ids, command("InitiateBatch", name))
    say(batch=f"batch-{name}", status="pending")
    answer = (await store.cancel_batch(f"batch-{name}", command("CancelBatch", name))).answer
    say(batch=f"batch-{name}", status="cancelled", count=answer.cancelled_files_count)


async def load(url: str, seed: str) -> None:
    """Write without end, sixteen at a time."""
    store = await open_store(url)

    async def worker(number: int) -> None:
        chance = random.Random(f"{seed}-{number}")
        for turn in range(1_000_000):
            name = f"{seed}-{number}-{turn}"
            await (one_batch(store, name) if chance.random() < 0.1 else one_file(store, name, chance))

    await asyncio.gather(*(worker(number) for number in range(16)))


def turn(switch: Path, *, on: bool) -> None:
    if on:
        switch.touch()
    else:
        switch.unlink(missing_ok=True)


async def cancel(url: str, switch: str, failing: str) -> None:
    """Cancel thirty files one after the other, those in ``failing`` (``first-last``) with syncs that break."""
    store = await open_store(url)
    # A reader keeps the log in place when the writer opens its connection anew.
    await store.count(None, datetime.now(UTC))
    ids = [f"file-{index}" for index in range(30)]
    for file_id in ids:
        await store.initiate_upload(FileSpec("a", 1), file_id, command("InitiateUpload", file_id))
    first, last = map(int, failing.split("-"))
    for index, file_id in enumerate(ids):
        await asyncio.to_thread(turn, Path(switch), on=first <= index <= last)
        try:
            await store.cancel_file(file_id, command("CancelFile", file_id))
            say(file=file_id, outcome="ok")
        except UploadError as error:
            say(file=file_id, outcome=error.reason)
    say(ready=True)
    # Killed here: what was only in memory is gone.
    time.sleep(60)  # noqa: ASYNC251


if __name__ == "__main__":
    asyncio.run(load(*sys.argv[2:]) if sys.argv[1] == "load" else cancel(*sys.argv[2:]))
