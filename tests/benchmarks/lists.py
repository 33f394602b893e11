"""How long a page and the counts take among a thousand files and among many: each filter, in both orders.

A filter takes many of the rows, few, or none of them. Figures are of the store alone, without a door: milliseconds of
the middle page, and how many times as long it takes among many.
Options: ``--rows N`` (300000), ``--pages N`` a figure (60), ``--share N``: lists of a principal that owns every Nth
file, while another one owns the rest (0: nobody owns any).
"""

from __future__ import annotations

import argparse
import asyncio
import sqlite3
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.sizes import quantile
from upload_server.domain.statistics import Buckets
from upload_server.store.open import open_store
from upload_server.store.protocol import Store
from upload_server.store.sqlite.schema import prepare
from upload_server.store.values import Listing, Trail

FEW = 1_000
START = datetime(2024, 1, 1, tzinfo=UTC)
PAGE = 50
# What happens to the rows, by their number: most are completed, a third is cancelled, two failed, one long ago by name.
FILL = """
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :rows)
    INSERT INTO file (file_id, filename, content_type, size_bytes, status, created_at, updated_at, active_at, owner,
                      cancelled_by, cancelled_at, change_no)
    SELECT printf('%08x-0000-4000-8000-%012x', i * 2654435761 % 4294967296, i),
           iif(i IN (7, :rows - 7), 'rare/', 'photos/') || (i * 7919 % 1000003) || '.jpg', 'image/jpeg', i,
           CASE WHEN i IN (11, :rows - 11) THEN 'failed' WHEN i % 3 = 0 THEN 'cancelled' ELSE 'completed' END,
           strftime('%Y-%m-%d %H:%M:%f', 1704067200 + i, 'unixepoch') || '000',
           strftime('%Y-%m-%d %H:%M:%f', 1704067260 + i, 'unixepoch') || '000', '', '',
           CASE WHEN i % 3 THEN '' WHEN i IN (300, :rows / 3 * 3 - 300) THEN 'user:rare' ELSE 'user' END,
           iif(i % 3, NULL, strftime('%Y-%m-%d %H:%M:%f', 1704067260 + i, 'unixepoch') || '000'), 2 * i
    FROM n"""
CREATIONS = """
    INSERT INTO audit_event (change_no, file_row, batch_row, from_status, to_status, actor, source, reason, request_id,
                             occurred_at)
    SELECT 2 * id - 1, id, batch_row, '', 'pending', 'user', 'grpc', '', '', created_at FROM file ORDER BY id"""
ENDINGS = """
    INSERT INTO audit_event (change_no, file_row, batch_row, from_status, to_status, actor, source, reason, request_id,
                             occurred_at)
    SELECT 2 * id, id, batch_row, 'pending', status, iif(cancelled_by = '', 'user', cancelled_by),
           iif(status = 'failed', 'expiry', 'grpc'), '', '', updated_at
    FROM file ORDER BY id"""


OWNERS = "UPDATE file SET owner = iif(id % :share, 'bob', 'ada')"


def fill(path: Path, rows: int, share: int) -> None:
    """Make a store of so many files, each with two events."""
    prepare(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(FILL, {"rows": rows})
        if share:
            connection.execute(OWNERS, {"share": share})
        connection.execute(CREATIONS)
        connection.execute(ENDINGS)
        connection.execute("UPDATE store_info SET last_change = :last", {"last": 2 * rows})
        connection.commit()


def filters(rows: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each filter of files: taking many, few, none."""
    end = START + timedelta(seconds=rows)
    yield "no filter", {}
    yield "status, many", {"statuses": ["completed"]}
    yield "status, few", {"statuses": ["failed"]}
    yield "status, none", {"statuses": ["uploading"]}
    yield "two states", {"statuses": ["cancelled", "failed"]}
    for what, prefix in (("many", "photos/"), ("few", "rare/"), ("none", "nothing/")):
        yield f"filename_prefix, {what}", {"filename_prefix": prefix}
    for what, after in (("many", START), ("few", end - timedelta(seconds=9)), ("none", end + timedelta(days=1))):
        yield f"created_after, {what}", {"created_after": after}
        yield f"updated_after, {what}", {"updated_after": after + timedelta(seconds=60)}
    for what, before in (("many", end), ("few", START + timedelta(seconds=9)), ("none", START)):
        yield f"created_before, {what}", {"created_before": before}
    for what, by in (("many", "user"), ("few", "user:rare"), ("none", "nobody")):
        yield f"cancelled_by, {what}", {"cancelled_by": by}


def event_filters(rows: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each filter of the trail."""
    end = START + timedelta(seconds=rows)
    yield "events", {}
    for name, values in (
        ("actor", ("user", "user:rare", "nobody")),
        ("source", ("grpc", "expiry", "tus")),
        ("to_status", ("cancelled", "failed", "uploading")),
        ("occurred_after", (START, end + timedelta(seconds=51), end + timedelta(days=1))),
        ("occurred_before", (end, START + timedelta(seconds=9), START)),
    ):
        for what, value in zip(("many", "few", "none"), values, strict=True):
            yield f"events by {name}, {what}", {name: value}


def reads(store: Store, rows: int, owner: str | None) -> Iterator[tuple[str, Callable[[], Awaitable[object]]]]:
    """Every read of one store, under its name."""
    for newest_first in (False, True):
        order = ", newest first" if newest_first else ""
        for name, wanted in filters(rows):
            yield (
                name + order,
                partial(store.list_files, replace(Listing(owner, newest_first=newest_first), **wanted), None, PAGE),
            )
        for name, wanted in event_filters(rows):
            trail = replace(Trail(owner, newest_first=newest_first), **wanted)
            yield name + order, partial(store.list_audit_events, trail, None, PAGE)
    now = START + timedelta(seconds=rows)
    yield "counts", partial(store.count, owner or "", now)
    yield "counts and a day in 240 buckets", partial(store.count, owner or "", now, Buckets.until(now, 360, 240))


async def milliseconds(read: Callable[[], Awaitable[object]]) -> float:
    """How long one read takes."""
    started = time.perf_counter()
    await read()
    return (time.perf_counter() - started) * 1000


async def measure(few: Store, many: Store, rows: int, times: int, owner: str | None) -> None:
    """Print every figure; the two stores take turns, so that what else the machine does is the same for both."""
    first = [await milliseconds(partial(store.count, "", START + timedelta(seconds=rows))) for store in (few, many)]
    print(f"{'the first count after a start':46} {first[0]:8.2f} {first[1]:8.2f}")
    for (name, of_few), (_, of_many) in zip(reads(few, FEW, owner), reads(many, rows, owner), strict=True):
        took = [(await milliseconds(of_few), await milliseconds(of_many)) for _ in range(times)]
        middles = [quantile(list(column), 0.5) for column in zip(*took, strict=True)]
        print(f"{name:46} {middles[0]:8.2f} {middles[1]:8.2f} {middles[1] / middles[0]:7.1f}", flush=True)


async def run(rows: int, times: int, share: int) -> None:
    """Fill two stores and measure them."""
    with tempfile.TemporaryDirectory() as folder:
        stores = []
        for count in (FEW, rows):
            path = Path(folder) / f"{count}.sqlite3"
            fill(path, count, share)
            stores.append(await open_store(f"sqlite:///{path}"))
        try:
            await measure(stores[0], stores[1], rows, times, "ada" if share else None)
        finally:
            for store in stores:
                await store.close()


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=300_000)
    parser.add_argument("--pages", type=int, default=60)
    parser.add_argument("--share", type=int, default=0)
    options = parser.parse_args()
    print(f"{'ms a page of ' + str(PAGE):46} {FEW:>8} {options.rows:>8}   ratio")
    asyncio.run(run(options.rows, options.pages, options.share))
