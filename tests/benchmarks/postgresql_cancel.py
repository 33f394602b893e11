"""Cancels on PostgreSQL: the store against the raw statements of its groups, on the same server, turn by turn.

The raw side decides nothing: it sends what the store would send for the same groups, its values made beforehand, and
waits for the commit. Both sides cancel files of their own in one database that holds many more.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import psutil

from support import postgres
from upload_server.domain.caller import Caller
from upload_server.domain.states import FileSpec, Source
from upload_server.store.open import store_at
from upload_server.store.options import StoreOptions
from upload_server.store.postgresql import statements as transaction
from upload_server.store.postgresql.connection import Address, PostgresqlConnection, connect
from upload_server.store.postgresql.dialect import UNKNOWN
from upload_server.store.protocol import Store
from upload_server.store.sql import statements
from upload_server.store.sql.dialect import Sql
from upload_server.store.values import Command

COMMIT = Sql("COMMIT")


def command(method: str) -> Command:
    return Command(Caller(Source.GRPC), method, datetime.now(UTC))


async def announce(store: Store, files: int) -> list[str]:
    """Announce files that stand alone, many at once."""
    ids = [str(uuid.uuid4()) for _ in range(files)]
    for start in range(0, files, 500):
        await asyncio.gather(
            *(store.initiate_upload(FileSpec("a.bin", 3), one, command("")) for one in ids[start : start + 500])
        )
    return ids


class Raw:
    """The statements of groups of cancels, without a dialect and without decisions."""

    def __init__(self, connection: PostgresqlConnection) -> None:
        self._connection = connection

    def sessions(self) -> list[int]:
        """Return the server's processes for this database."""
        sql = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend'"
        return [row[0] for row in self._connection.rows(sql)]

    def cancel_all(self, groups: Sequence[Sequence[str]], under: list[float] | None = None) -> None:
        """Cancel one group after the other; ``under`` hears seconds as of ``cancel``."""
        for group in groups:
            self.cancel(group, under)

    def cancel(self, file_ids: Sequence[str], under: list[float] | None = None) -> int:
        """Cancel one group, and return its last number; ``under`` hears the seconds from the order lock to the answer
        of the COMMIT."""
        connection = self._connection
        at = f"{datetime.now(UTC).replace(tzinfo=None)}+00"
        served = connection.last_rows(transaction.BEGIN, transaction.READ_COUNTERS)[0][1]
        wanted, nobody = json.dumps(file_ids), "[]"
        named = {"file_ids": wanted, "uncounted": nobody, "rows": nobody, "batch_ids": nobody}
        connection.rows(transaction.LOCK_ROWS, named)
        found = connection.rows(statements.READ_TO_CANCEL, {"file_ids": wanted})
        events = [
            (UNKNOWN + 1 + index, row[0], None, "pending", "cancelled", "user", "grpc", "", "", at, "", "", "")
            for index, row in enumerate(found)
        ]
        count = len(events)
        numbers: dict[str, Any] = {"first": UNKNOWN + 1, "last": UNKNOWN + count, "rows_expected": count}
        began = time.perf_counter()
        answers = connection.in_one(
            [
                (transaction.TAKE_ORDER_LOCK, {}),
                (transaction.GIVE_NUMBERS, {"count": count, "served": served, "unknown": UNKNOWN}),
                (transaction.exactly("INSERT_EVENTS"), {"events": json.dumps(events), "rows_expected": count}),
                (transaction.exactly("CANCEL_FILES"), numbers),
                (COMMIT, {}),
            ]
        )
        if under is not None:
            under.append(time.perf_counter() - began)
        return int(answers[1][0][0]) + count - 1


def measured(raw: Raw, work: Callable[[], object], pids: Sequence[int] = ()) -> tuple[float, float, float]:
    """Return seconds by the clock, of processes (none: of this one), and of the server's for this database."""
    sides = [[psutil.Process(pid) for pid in pids or (os.getpid(),)], [psutil.Process(pid) for pid in raw.sessions()]]
    before = [*map(cpu_seconds, sides)]
    wall = time.perf_counter()
    work()
    wall = time.perf_counter() - wall
    spent, server = (cpu_seconds(side) - then for side, then in zip(sides, before, strict=True))
    return wall, spent, server


def cpu_seconds(processes: Sequence[psutil.Process]) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in processes)


async def turn_of_store(store: Store, ids: Sequence[str], group: int) -> None:
    """Cancel files with ``group`` in flight, so that the writer takes them together."""
    waiting = iter(ids)

    async def caller() -> None:
        for file_id in waiting:
            await store.cancel_file(file_id, command("CancelFile"))

    await asyncio.gather(*(caller() for _ in range(group)))


def show(group: int, cancels: int, figures: Mapping[str, Sequence[tuple[float, float, float]]]) -> None:
    """Print the medians of both sides, and their ratio."""
    rates, texts = [], []
    for side, found in figures.items():
        wall, spent, server = (statistics.median(values) for values in zip(*found, strict=True))
        rates.append(cancels / wall)
        texts.append(
            f"{side} {rates[-1]:6.0f}/s, {1e6 * spent / cancels:4.0f} us of CPU here and"
            f" {1e6 * server / cancels:4.0f} at the server"
        )
    print(f"groups of {group:3}: {'; '.join(texts)}; ratio {rates[0] / rates[1]:.2f}")


def main() -> None:
    """Print cancels a second and CPU time a cancel of both sides, for each size of group."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=20_000, help="files that lie there beside those cancelled")
    parser.add_argument("--cancels", type=int, default=2_048, help="cancels of each side in each turn")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--groups", default="8,64,256")
    options = parser.parse_args()
    url = postgres.server().new_store()
    raw = Raw(connect(Address(url), StoreOptions(), writes=True))
    with asyncio.Runner() as runner:
        store: Store = runner.run(store_at(url).open())
        runner.run(announce(store, options.files))
        for group in map(int, options.groups.split(",")):
            figures: dict[str, list[tuple[float, float, float]]] = {"store": [], "raw": []}
            for _ in range(options.turns):
                ids = runner.run(announce(store, 2 * options.cancels))
                ours, theirs = ids[: options.cancels], ids[options.cancels :]
                figures["store"].append(measured(raw, lambda: runner.run(turn_of_store(store, ours, group))))  # noqa: B023
                groups = [theirs[start : start + group] for start in range(0, len(theirs), group)]
                figures["raw"].append(measured(raw, lambda: raw.cancel_all(groups)))  # noqa: B023
            show(group, options.cancels, figures)
        runner.run(store.close())
