"""Filters: whichever way a page finds its rows, the pages hold what passes all filters, once and in order."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import pytest

from contract.store.kit import audit, command, everything, id_of, new_id
from upload_server.domain.states import AuditEvent, Batch, BatchStatus, File, FileSpec, FileStatus, Source
from upload_server.store.protocol import Store
from upload_server.store.sql import lists
from upload_server.store.values import Listing, Trail

T = TypeVar("T")
NOON = datetime(2024, 1, 1, 12, tzinfo=UTC)
NAMES = ("a", "b", "a/1", "a/2", "ab", "\ud7ffx", "\ud7ff", "\ue000", "\U0010ffff", "\U0010ffffz", "Ä", "ä", "%", "_")


def at(second: float) -> datetime:
    return NOON + timedelta(seconds=second)


@pytest.fixture(
    name="bounds",
    params=[(2_000, (500, 10_000)), (2, (3, 7)), (0, (1, 2))],
    ids=["few rows", "more than few", "never few"],
)
def _bounds(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What counts as few rows, and how many a page looks at: each way of finding rows has its turn."""
    few, looks = request.param
    monkeypatch.setattr(lists, "_FEW", few)
    monkeypatch.setattr(lists, "LOOKS", looks)


async def fill(store: Store, seed: int) -> None:
    """Announce for several owners and cancel at random times, some of which are equal and some of which go back."""
    chance = random.Random(seed)

    def moment() -> datetime:
        return at(chance.randrange(20))

    def owner() -> str:
        return chance.choice(["", "ann", "bob"])

    files: list[str] = []
    for _ in range(25):
        spec, file_id = FileSpec(chance.choice(NAMES), 3), new_id()
        await store.initiate_upload(spec, file_id, command("InitiateUpload", at=moment(), principal=owner()))
        files.append(file_id)
    for _ in range(8):
        specs, batch_id = [FileSpec(chance.choice(NAMES), 3) for _ in range(chance.randint(1, 4))], new_id()
        ids = [new_id() for _ in specs]
        await store.initiate_batch(specs, batch_id, ids, command("InitiateBatch", at=moment(), principal=owner()))
        if chance.random() < 0.4:
            await store.cancel_batch(batch_id, command("CancelBatch", at=moment()))
        else:
            files += ids
    for file_id in chance.sample(files, 20):
        source = chance.choice([Source.GRPC, Source.HTTP, Source.WEBSOCKET_CLOSE])
        if chance.random() < 0.3:
            await store.claim(file_id, 0, command("UploadFile", at=moment()))
        else:
            await store.cancel_file(file_id, command(at=moment(), source=source))


async def exactly(read: Any, listing: Listing | Trail, expected: Sequence[T], key: Callable[[T], object]) -> None:
    """Every page size finds just the expected; short pages are allowed, a page without progress is not."""
    for limit in (2, 1000):
        found: list[T] = []
        cursor = None
        for _ in range(10_000):
            page = await read(listing, cursor, limit)
            assert len(page.rows) <= limit
            found += page.rows
            if page.next_cursor is None:
                break
            assert page.next_cursor != cursor
            cursor = page.next_cursor
        assert [key(row) for row in found] == [key(row) for row in expected], listing


def passes(row: File | Batch, listing: Listing, names: Sequence[str]) -> bool:
    return all(
        (
            listing.owner is None or row.owner == listing.owner,
            not listing.statuses or row.status in listing.statuses,
            not listing.batch_id or row.batch_id == listing.batch_id,
            not listing.without_batch or row.batch_id == "",
            any(name.startswith(listing.filename_prefix) for name in names),
            listing.created_after is None or row.created_at > listing.created_after,
            listing.created_before is None or row.created_at < listing.created_before,
            listing.updated_after is None or row.updated_at > listing.updated_after,
            not listing.cancelled_by or row.cancelled_by == listing.cancelled_by,
        )
    )


def listings(chance: random.Random, statuses: Sequence[str], batch_ids: Sequence[str]) -> Iterator[Listing]:
    """Each filter alone, then some at random together."""
    single: list[dict[str, Any]] = [
        {},
        *({"owner": owner} for owner in ("", "ann", "eve")),
        *({"statuses": [status]} for status in statuses),
        *({"filename_prefix": prefix} for prefix in ("a", "a/", "\ud7ff", "\U0010ffff", "%", "nobody")),
        *({"created_after": at(second)} for second in (-1, 0, 10, 19, 30)),
        *({"created_before": at(second)} for second in (0, 10, 30)),
        *({"updated_after": at(second)} for second in (-1, 0, 10, 18, 30)),
        *({"cancelled_by": by} for by in ("user", "batch_cancel", "websocket_close", "all_files", "nobody")),
        *({"batch_id": batch_id} for batch_id in batch_ids),
        *([{"without_batch": True}] if batch_ids else []),
    ]
    for filters in single:
        yield Listing(**filters)
    for _ in range(30):
        together: dict[str, Any] = {}
        for filters in chance.sample(single, chance.randint(2, 4)):
            together |= filters
        if chance.random() < 0.4:
            together["statuses"] = sorted(chance.sample(statuses, 2))
        if chance.random() < 0.4:
            together["owner"] = "ann"
        yield Listing(**together)


@pytest.mark.usefixtures("bounds")
@pytest.mark.parametrize("seed", [1, 2])
async def test_files_pass_all_filters_whichever_way_they_are_found(store: Store, seed: int) -> None:
    await fill(store, seed)
    rows = [change.record for change in await everything(store)]
    files = sorted((row for row in rows if isinstance(row, File)), key=lambda file: file.created_at)
    order = {event.file_id: event.event_id for event in reversed(await audit(store))}
    files.sort(key=lambda file: (file.created_at, order[file.file_id]))
    chance = random.Random(seed)
    batch_ids = [next(file.batch_id for file in files if file.batch_id), new_id()]
    for listing in listings(chance, [*FileStatus], batch_ids):
        expected = [file for file in files if passes(file, listing, [file.filename])]
        for newest_first in (False, True):
            wanted = Listing(**{**_fields(listing), "newest_first": newest_first})
            await exactly(store.list_files, wanted, expected[:: -1 if newest_first else 1], lambda file: file.file_id)


@pytest.mark.usefixtures("bounds")
@pytest.mark.parametrize("seed", [1, 2])
async def test_batches_pass_all_filters_whichever_way_they_are_found(store: Store, seed: int) -> None:
    await fill(store, seed)
    rows = [change.record for change in await everything(store)]
    names: dict[str, list[str]] = {}
    for row in rows:
        if isinstance(row, File) and row.batch_id:
            names.setdefault(row.batch_id, []).append(row.filename)
    order = {event.batch_id: event.event_id for event in reversed(await audit(store)) if not event.file_id}
    batches = [row for row in rows if isinstance(row, Batch)]
    batches.sort(key=lambda batch: (batch.created_at, order[batch.batch_id]))
    for listing in listings(random.Random(seed), [*BatchStatus], []):
        expected = [batch for batch in batches if passes(batch, listing, names[batch.batch_id])]
        for newest_first in (False, True):
            wanted = Listing(**{**_fields(listing), "newest_first": newest_first})
            await exactly(
                store.list_batches, wanted, expected[:: -1 if newest_first else 1], lambda batch: batch.batch_id
            )


@pytest.mark.usefixtures("bounds")
async def test_events_pass_all_filters(store: Store, kind: str) -> None:
    await fill(store, 3)
    made = await store.initiate_batch([FileSpec("a", 3)], new_id(), [new_id()], command("InitiateBatch", at=at(5)))
    await store.cancel_batch(made.answer[0].batch_id, command("CancelBatch", at=at(6)))
    events = await audit(store)
    owners = {id_of(record): record.owner for record in [change.record for change in await everything(store)]}
    single: list[dict[str, Any]] = [
        {},
        {"owner": "ann"},
        {"file_id": events[0].file_id},
        {"batch_id": next(event.batch_id for event in events if event.batch_id)},
        *({"actor": actor} for actor in ("user", "system", "nobody")),
        *({"source": source} for source in Source),
        *({"to_status": status} for status in {*FileStatus, *BatchStatus}),
        *({"occurred_after": at(second)} for second in (-1, 0, 10, 19, 30)),
        *({"occurred_before": at(second)} for second in (0, 10, 30)),
    ]

    def wanted(event: AuditEvent, filters: dict[str, Any]) -> bool:
        times = {"occurred_after", "occurred_before", "owner"}
        return (
            filters.get("owner") in (None, owners[event.file_id or event.batch_id])
            and all(getattr(event, name) == value for name, value in filters.items() if name not in times)
            and event.occurred_at > filters.get("occurred_after", at(-100))
            and event.occurred_at < filters.get("occurred_before", at(100))
        )

    pairs = list(itertools.product(single, single))
    # To plan hundreds of statements, each for a few runs, takes PostgreSQL longer than to run them.
    for first, second in random.Random(4).sample(pairs, 60) if kind == "postgresql" else pairs:
        filters = {**first, **second}
        expected = [event for event in events if wanted(event, filters)]
        for newest_first in (False, True):
            await exactly(
                store.list_audit_events,
                Trail(**filters, newest_first=newest_first),
                expected[:: -1 if newest_first else 1],
                lambda event: event.event_id,
            )


def _fields(listing: Listing) -> dict[str, Any]:
    return {name: getattr(listing, name) for name in Listing.__slots__}
