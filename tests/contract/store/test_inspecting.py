"""What `check` and `audit verify` see of a store, whichever it is, and what `check --repair` mends."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from contract.store.kit import batch_of, command, completed, pending, uploading
from support.stores import shell
from upload_server.domain.chain import seals_of
from upload_server.domain.states import FailureReason, Source
from upload_server.sink.open import open_sink
from upload_server.sink.protocol import Sink
from upload_server.store.inspection import Inspection
from upload_server.store.open import StoreAt
from upload_server.store.protocol import Store
from upload_server.upkeep.audit.verify import Expected, verify
from upload_server.upkeep.check.findings import Report
from upload_server.upkeep.check.mend import mend
from upload_server.upkeep.check.run import CheckOptions, check


async def seal(store: Store) -> None:
    found = await store.read_unsealed(1000)
    assert await store.seal_events(found.head, seals_of(found.events, found.head, store.store_id))


@pytest.fixture
def sink(tmp_path: Path) -> Sink:
    return open_sink((tmp_path / "bytes").absolute().as_uri())


@pytest.fixture
async def lived(backend: StoreAt) -> StoreAt:
    """A store with files and batches in every state, sealed but for the last events."""
    store = await backend.open()
    await pending(store)
    gone, bad = await uploading(store), await uploading(store)
    await store.cancel_file(gone.file_id, command("CancelFile", "one", b"f", 'why: "not"'))
    await store.fail(bad.file_id, bad.fence, FailureReason.CHECKSUM_MISMATCH, command("UploadFile"))
    batch, ids = await batch_of(store, 3)
    await store.cancel_file(ids[0], command(source=Source.WEBSOCKET_CLOSE))
    await store.cancel_batch(batch.batch_id, command("CancelBatch", "all", b"f", "all"))
    await batch_of(store, 2)
    await seal(store)
    await pending(store)
    await store.close()
    return backend


@contextlib.contextmanager
def looked_at(place: StoreAt) -> Iterator[Inspection]:
    with contextlib.closing(place.inspect()) as inspection:
        yield inspection


def checked(place: StoreAt, sink: Sink) -> Report:
    with looked_at(place) as inspection:
        return check(inspection, sink, CheckOptions(running=False, pause=0.0))


def kinds(report: Report) -> list[str]:
    return sorted({finding.kind for finding in report.found})


async def test_a_store_that_lived_has_no_faults(lived: StoreAt, sink: Sink) -> None:
    assert lived.exists
    with looked_at(lived) as inspection:
        verdict = verify(inspection, Expected())
        named = inspection.files_named([facts.file_id for facts in inspection.files_after(0, 3)])

    assert (verdict.broken, verdict.unsealed) == (None, 1)
    assert len(named) == 3
    report = checked(lived, sink)
    assert [finding.text for finding in report.found] == []
    assert report.counted["files"] == 9
    assert report.counted["answers"] == 2


async def test_it_is_looked_at_while_a_server_runs(lived: StoreAt, sink: Sink) -> None:
    store = await lived.open()
    assert lived.holder()
    await pending(store)
    assert kinds(checked(lived, sink)) == []
    await pending(store)
    await store.close()


async def test_a_changed_trail_is_found(lived: StoreAt, url: str) -> None:
    with shell(url, triggers=False) as hand:
        hand.execute("UPDATE audit_event SET reason = 'better' WHERE change_no = 4")
    with looked_at(lived) as inspection:
        verdict = verify(inspection, Expected())
    assert verdict.broken is not None
    assert verdict.broken.event_id == 4


async def test_what_is_wrong_is_found_and_what_can_be_is_mended(lived: StoreAt, url: str, sink: Sink) -> None:
    with shell(url, triggers=False) as hand:
        hand.execute("UPDATE store_info SET last_change = 1")
        hand.execute("UPDATE batch SET cancelled_files_count = 7 WHERE id = 1")
        hand.execute("UPDATE batch SET completed_files = 2 WHERE id = 2")
        hand.execute("INSERT INTO owed_deletion (file_row) VALUES (999)")
        hand.execute("DROP INDEX file_owner_filename")
        hand.execute("CREATE INDEX my_own ON file (content_type)")
        hand.execute("DELETE FROM file WHERE id = 9")
        hand.execute("UPDATE stored_answer SET answer = 'nobody' WHERE method = 'CancelFile'")
    found = ["answer.form", "audit.no_row", "batch.counters", "debt.nothing", "schema", "store.counter"]
    assert kinds(checked(lived, sink)) == found

    held = lived.lock()
    inspection, mending = lived.inspect(), lived.mend()
    report = check(inspection, sink, CheckOptions(running=False, pause=0.0))
    mend(report, inspection, mending, sink, delete_unknown=False)
    inspection.close()
    mending.close()
    held.release()

    assert kinds(checked(lived, sink)) == ["answer.form", "audit.no_row"]
    store = await lived.open()
    assert store.last_change > 1
    await pending(store)
    await completed(store)
    await store.close()
