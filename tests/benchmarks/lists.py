"""How long a page and the counts take among a thousand files and among many: each filter, in both orders.

A filter takes many of the rows, few, or none of them. Figures are of the store alone, without a door: milliseconds of
the middle page, and how many times as long it takes among many.
Options: ``--rows N`` (300000), ``--pages N`` a figure (60), ``--share N``: lists of a principal that owns every Nth
file, while another one owns the rest (0: nobody owns any), ``--on postgresql``: a server of the tests' own.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.sizes import quantile
from support import stores
from upload_server.domain.statistics import Buckets
from upload_server.store.open import migrate_store, open_store
from upload_server.store.protocol import Store
from upload_server.store.values import Listing, Trail

FEW = 1_000
START = datetime(2024, 1, 1, tzinfo=UTC)
PAGE = 50
# What happens to the rows, by their number: most are completed, a third is cancelled, two failed, one long ago by name.
FILL = """
    INSERT INTO file (id, file_id, filename, content_type, size_bytes, status, created_at, updated_at, active_at, owner,
                      cancelled_by, cancelled_at, change_no)
    SELECT i, {id}, CASE WHEN i IN (7, {rows} - 7) THEN 'rare/' ELSE 'photos/' END || (i * 7919 % 1000003) || '.jpg',
           'image/jpeg', i,
           CASE WHEN i IN (11, {rows} - 11) THEN 'failed' WHEN i % 3 = 0 THEN 'cancelled' ELSE 'completed' END,
           {created}, {ended}, {created}, {owner},
           CASE WHEN i % 3 <> 0 THEN '' WHEN i IN (300, {rows} / 3 * 3 - 300) THEN 'user:rare' ELSE 'user' END,
           CASE WHEN i % 3 = 0 THEN {ended} END, 2 * i
    FROM {numbers}"""
EVENTS = """
    INSERT INTO audit_event (change_no, file_row, batch_row, from_status, to_status, actor, source, reason, request_id,
                             occurred_at)
    SELECT 2 * id - 1, id, batch_row, '', 'pending', 'user', 'grpc', '', '', created_at FROM file
    UNION ALL
    SELECT 2 * id, id, batch_row, 'pending', status, CASE WHEN cancelled_by = '' THEN 'user' ELSE cancelled_by END,
           CASE WHEN status = 'failed' THEN 'expiry' ELSE 'grpc' END, '', '', updated_at
    FROM file ORDER BY 1"""
# What each database says in its own way: an id made of a number, a number of seconds as a time, and numbers in a row.
WORDS = {
    "sqlite": {
        "id": "printf('%08x-0000-4000-8000-%012x', i * 2654435761 % 4294967296, i)",
        "created": "strftime('%Y-%m-%d %H:%M:%f', 1704067200 + i, 'unixepoch') || '000'",
        "ended": "strftime('%Y-%m-%d %H:%M:%f', 1704067260 + i, 'unixepoch') || '000'",
        "numbers": "(WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows}) SELECT i FROM n)",
    },
    "postgresql": {
        "id": "lpad(to_hex(i * 2654435761 % 4294967296), 8, '0') || '-0000-4000-8000-' || lpad(to_hex(i), 12, '0')",
        "created": "to_timestamp(1704067200 + i)",
        "ended": "to_timestamp(1704067260 + i)",
        "numbers": "generate_series(1, {rows}::bigint) AS n (i)",
    },
}


async def fill(url: str, rows: int, share: int) -> None:
    """Make a store of so many files, each with two events."""
    await migrate_store(url)
    kind = url.partition(":")[0]
    owner = f"CASE WHEN i % {share} = 0 THEN 'ada' ELSE 'bob' END" if share else "''"
    words = {name: text.replace("{rows}", str(rows)) for name, text in WORDS[kind].items()}
    with stores.shell(url, triggers=False) as connection:
        connection.execute(FILL.format(**words, rows=rows, owner=owner))
        connection.execute(EVENTS)
        connection.execute("UPDATE store_info SET last_change = (SELECT max(change_no) FROM audit_event)")
        if kind == "postgresql":
            # As autovacuum does soon after; in the midst of the measurement it would be one of its figures.
            connection.execute("VACUUM ANALYZE")


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


async def run(kind: str, rows: int, times: int, share: int) -> None:
    """Fill two stores and measure them."""
    with tempfile.TemporaryDirectory() as folder:
        opened = []
        for count in (FEW, rows):
            (place := Path(folder) / str(count)).mkdir()
            url = stores.url_in(place, kind)
            await fill(url, count, share)
            opened.append(await open_store(url))
        try:
            await measure(opened[0], opened[1], rows, times, "ada" if share else None)
        finally:
            for store in opened:
                await store.close()


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=300_000)
    parser.add_argument("--pages", type=int, default=60)
    parser.add_argument("--share", type=int, default=0)
    parser.add_argument("--on", choices=sorted(stores.STORES), default="sqlite")
    options = parser.parse_args()
    print(f"{'ms a page of ' + str(PAGE):46} {FEW:>8} {options.rows:>8}   ratio")
    asyncio.run(run(options.on, options.rows, options.pages, options.share))
