"""How far one database goes: what docs/scaling.md counts on, beside what this machine measures.

Two nodes in this process on the tests' PostgreSQL server; database and nodes share the machine, so a database of its
own does better. Options: ``--uploads N`` (6000). The last lines are the model, with this machine's figures.
"""

from __future__ import annotations

import argparse
import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TypeVar

import psutil

from support import postgres
from upload_server.domain.caller import Caller
from upload_server.domain.chain import seals_of
from upload_server.domain.states import FileSpec, Source
from upload_server.store.open import store_at
from upload_server.store.options import StoreOptions
from upload_server.store.protocol import Store
from upload_server.store.values import Command, Targets

T = TypeVar("T")
IN_FLIGHT = 64
PAGE = 500
DAY = 24 * 3600
DIGEST = "ab" * 32


@dataclass(frozen=True)
class Figures:
    """What one database does: what docs/scaling.md says, or what was measured here."""

    # Changes of status through the one order of changes, from two nodes with 64 calls in flight each.
    changes_per_second: float
    # Streams whose progress is recorded.
    progress_per_second: float
    # Rows that one node's watch reads.
    tail_rows_per_second: float
    # Bytes of tables and indexes that an upload leaves: its row, three events and their seals.
    history_bytes: float
    # Processor time of a change at the database, in microseconds: what is left of it where a machine is busy.
    database_us: float


# What the page counts on.
MODEL = Figures(
    changes_per_second=6_000,
    progress_per_second=10_000,
    tail_rows_per_second=60_000,
    history_bytes=2_200,
    database_us=100,
)
# Announced, sent to, ended.
CHANGES_PER_UPLOAD = 3
# Of the rate flat out, what a day may average: nights are quiet and evenings are not.
PLANNED = 0.4
# How often the progress of a slow stream is recorded.
DURABLE_SECONDS = 1.0


def uploads_per_day(figures: Figures) -> float:
    """Uploads that one cell is planned for in a day."""
    return PLANNED * figures.changes_per_second / CHANGES_PER_UPLOAD * DAY


def cells_for(uploads: float, figures: Figures) -> int:
    """How many databases, each with its nodes and its storage, so many uploads a day need."""
    return -int(-uploads // uploads_per_day(figures))


def nodes_to_watch(figures: Figures) -> float:
    """How many nodes with a watch of everything one database's changes can be read by, each reading all of them."""
    return figures.tail_rows_per_second / figures.changes_per_second


def command() -> Command:
    return Command(Caller(Source.GRPC), "", datetime.now(UTC))


async def many(work: Callable[[Store, str], Awaitable[T]], stores: Sequence[Store], ids: Sequence[str]) -> list[T]:
    """Do something for each id, by turns at each store, with 64 in flight at each."""
    waiting = iter(enumerate(ids))
    done: list[T] = []

    async def caller() -> None:
        for index, one in waiting:
            done.append(await work(stores[index % len(stores)], one))

    await asyncio.gather(*(caller() for _ in range(IN_FLIGHT * len(stores))))
    return done


async def rate(count: int, work: Awaitable[object]) -> float:
    began = time.perf_counter()
    await work
    return count / (time.perf_counter() - began)


async def lifecycle(stores: Sequence[Store], uploads: int) -> float:
    """Announce, claim and end uploads at both nodes, half of them by a cancel; returns changes a second."""
    ids = [str(uuid.uuid4()) for _ in range(uploads)]

    async def live(store: Store, file_id: str) -> None:
        await store.initiate_upload(FileSpec("example.pdf", 3, "application/pdf"), file_id, command())
        fence = (await store.claim(file_id, 0, command())).answer.file.fence
        if int(file_id[-1], 16) % 2:
            await store.cancel_file(file_id, command())
        else:
            await store.complete(file_id, fence, DIGEST, 3, command())

    return await rate(CHANGES_PER_UPLOAD * uploads, many(live, stores, ids))


async def progress(stores: Sequence[Store], records: int) -> float:
    """Record progress of a thousand open uploads over and over; returns records a second."""
    ids = [str(uuid.uuid4()) for _ in range(1000)]
    fences: dict[str, int] = {}

    async def begin(store: Store, file_id: str) -> None:
        await store.initiate_upload(FileSpec("slow.bin", 2**30), file_id, command())
        fences[file_id] = (await store.claim(file_id, 0, command())).answer.file.fence

    await many(begin, stores, ids)
    received = dict.fromkeys(ids, 0)

    async def record(store: Store, file_id: str) -> None:
        received[file_id] += 1024
        await store.record_progress(file_id, fences[file_id], received[file_id], datetime.now(UTC), Source.GRPC)

    # Each upload belongs to one node, as its stream does.
    rounds = [ids[start % 1000] for start in range(records)]
    return await rate(records, many(record, stores, rounds))


async def tail(store: Store) -> float:
    """Read all changes as a watch does; returns rows a second."""
    rows, after, began = 0, 0, time.perf_counter()
    while True:
        page = await store.read_changes(Targets(all=True), None, after, PAGE)
        rows += len(page.changes)
        if page.complete:
            return rows / (time.perf_counter() - began)
        after = page.changes[-1].no


async def seal(store: Store) -> None:
    while True:
        found = await store.read_unsealed(1000)
        if not found.events:
            return
        await store.seal_events(found.head, seals_of(found.events, found.head, store.store_id))


def size_of(url: str) -> int:
    tables = ("file", "audit_event", "audit_seal")
    with postgres.shell(url, triggers=True) as hand:
        return sum(
            int(hand.execute("SELECT pg_total_relation_size(%s::regclass)", (table,)).fetchone()[0]) for table in tables
        )


async def measure(uploads: int) -> Figures:
    """Measure all of it on a fresh database."""
    url = postgres.server().new_store()
    stores = [await store_at(url).open(StoreOptions(shared=True)) for _ in range(2)]
    empty = size_of(url)
    sessions = [psutil.Process(pid) for pid in postgres.server().backends(url.partition("@/")[2].partition("?")[0])]
    before = sum(sum(session.cpu_times()[:2]) for session in sessions)
    changes = await lifecycle(stores, uploads)
    spent = sum(sum(session.cpu_times()[:2]) for session in sessions) - before
    await seal(stores[0])
    history = (size_of(url) - empty) / uploads
    found = Figures(
        changes,
        await progress(stores, 2 * uploads),
        await tail(stores[0]),
        history,
        1e6 * spent / (CHANGES_PER_UPLOAD * uploads),
    )
    for store in stores:
        await store.close()
    return found


def main() -> None:
    """Print each figure beside the model's, and what the model comes to with either."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--uploads", type=int, default=6000)
    options = parser.parse_args()
    found = asyncio.run(measure(options.uploads))
    for name, theirs in asdict(MODEL).items():
        ours = getattr(found, name)
        print(f"{name:22} measured {ours:8.0f}   model {theirs:8.0f}   {ours / theirs:5.2f}x")
    for title, figures in (("measured", found), ("model", MODEL)):
        cells = ", ".join(f"{n} G: {cells_for(n * 1e9, figures)}" for n in (1, 10))
        print(
            f"{title:9} one cell {uploads_per_day(figures) / 1e6:4.0f} M uploads a day,"
            f" {uploads_per_day(figures) * figures.history_bytes / 1e9:4.0f} GB of rows a day,"
            f" {figures.progress_per_second * DURABLE_SECONDS:6.0f} slow streams; cells for {cells};"
            f" nodes that watch everything: {nodes_to_watch(figures):.0f}"
        )


if __name__ == "__main__":
    main()
