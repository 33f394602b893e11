"""Killed under load, again and again: whatever was answered is there, and nothing is half there."""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from contract.store.kit import assert_history_holds, command
from upload_server.domain.states import BatchStatus, FileStatus
from upload_server.store.open import open_store
from upload_server.store.protocol import Store

DRIVER = Path(__file__).with_name("driver.py")
ROUNDS = 6


def answers_until_killed(url: str, seed: int, answers: int) -> list[dict[str, Any]]:
    """Run the driver, kill -9 it after so many answers, and return all that it managed to tell."""
    with subprocess.Popen(
        [sys.executable, DRIVER, "load", url, str(seed)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as process:
        assert process.stdout is not None
        lines: Iterator[bytes] = iter(process.stdout)
        answers_read = [next(lines) for _ in range(answers)]
        process.kill()
        # The last line may be cut off.
        answers_read += [line for line in lines if line.endswith(b"\n")]
    return [json.loads(line) for line in answers_read]


async def assert_kept(store: Store, answers_read: list[dict[str, Any]]) -> None:
    for answer in answers_read:
        if "batch" in answer:
            batch = await store.get_batch(answer["batch"])
            if answer["status"] == "cancelled":
                assert (batch.status, batch.cancelled_files_count) == (BatchStatus.CANCELLED, answer["count"])
        else:
            file = await store.get_file(answer["file"])
            if FileStatus(answer["status"]).final:
                assert file.status == answer["status"]
            assert file.revision >= answer.get("revision", 0)
            assert file.bytes_received >= answer.get("bytes_received", 0)
            if "cancelled_at" in answer:
                assert file.cancelled_at == datetime.fromisoformat(answer["cancelled_at"])
                asked = command("CancelFile", answer["request_id"], b"f")
                again = await store.cancel_file(file.file_id, asked)
                assert (again.replayed, again.answer.cancelled_at) == (True, file.cancelled_at)


async def test_every_answer_survives_kill_9(url: str) -> None:
    chance = random.Random(1)
    answers_read: list[dict[str, Any]] = []
    last_change = 0

    for seed in range(ROUNDS):
        answers_read += await asyncio.to_thread(answers_until_killed, url, seed, chance.randint(20, 400))
        store = await open_store(url)
        try:
            assert store.last_change > last_change
            last_change = store.last_change
            await assert_kept(store, answers_read)
            await assert_history_holds(store)
        finally:
            await store.close()

    assert {answer["status"] for answer in answers_read} == {"pending", "uploading", "completed", "cancelled"}
