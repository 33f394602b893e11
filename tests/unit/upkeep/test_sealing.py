"""The sealer: behind the commits, within a second, through failures, kills and upgrades."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import grpc
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.grpc_upload import stub_on
from support.process import ServerProcess, StartServer
from support.stores import StoreAround, url_in
from unit.upkeep.installation import NOBODY, Installation
from upload.v1 import upload_pb2 as pb
from upload_server.domain.caller import Caller
from upload_server.domain.chain import Seal, form_of, link, origin
from upload_server.domain.errors import DatabaseFailure
from upload_server.domain.states import AuditEvent, FileSpec, Source
from upload_server.store.open import open_store
from upload_server.store.protocol import Store
from upload_server.store.values import Command
from upload_server.upkeep.sealer import Pace, Sealer

QUICK = Pace(chunk=7, linger=0.0, rest_share=0.0, retry=0.01, retry_damaged=0.01)
EVENT = AuditEvent(
    event_id=12,
    file_id="f",
    batch_id="",
    from_status="uploading",
    to_status="cancelled",
    actor="user",
    source="grpc",
    reason='caf\u00e9 "x"\u007f\u2028',
    request_id="r",
    occurred_at=datetime(2024, 1, 1, 12, tzinfo=UTC),
)


def test_the_canonical_form_is_what_the_documentation_promises() -> None:
    text = (
        '{"actor":"user","batch_id":"","event_id":"12","file_id":"f","from_status":"uploading",'
        '"occurred_at":"2024-01-01T12:00:00.000000Z","previous_hash":"'
        + "00" * 32
        + '","reason":"caf\u00e9 \\"x\\"\u007f\u2028","request_id":"r","source":"grpc","to_status":"cancelled"}'
    )

    assert form_of(EVENT, bytes(32)) == text.encode()
    # Hashes that were kept elsewhere must stay good for ever.
    assert link(EVENT, bytes(32)).hex() == "2f943b65adda1a8969fb49a6b36991069da98f835835f4369296e2b2f64d9999"
    assert origin("s").hex() == "ba8fcc0ba3a427d5a4af5a840f298b0afb37454feec3579b2fd0f0bf78324fc7"


@given(
    st.builds(AuditEvent, event_id=st.integers(1), occurred_at=st.datetimes(timezones=st.just(UTC))),
    st.binary(min_size=32, max_size=32),
)
def test_the_canonical_form_is_sorted_json(event: AuditEvent, previous: bytes) -> None:
    form = form_of(event, previous)

    fields = json.loads(form)
    assert json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode() == form
    assert fields.pop("previous_hash") == previous.hex()
    assert fields.pop("event_id") == str(event.event_id)
    assert datetime.fromisoformat(fields.pop("occurred_at")) == event.occurred_at
    assert fields == {name: getattr(event, name) for name in fields}
    # Only when set: the digests of events from before stay.
    named = event.filename and not event.from_status
    assert len(fields) == 8 + bool(event.credential) + bool(event.peer) + bool(named)


def command(method: str) -> Command:
    return Command(Caller(Source.GRPC), method, datetime.now(UTC))


async def announce(store: Store, files: int) -> None:
    specs = [FileSpec(f"{index}.bin", 3) for index in range(files)]
    ids = [f"{store.last_change}-{index}" for index in range(files)]
    await store.initiate_batch(specs, f"batch-{store.last_change}", ids, command("InitiateBatch"))


async def until(condition: Callable[[], bool], seconds: float = 30) -> None:
    """A database tells nobody when it changes: it is looked at again."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


class Troubled(StoreAround):
    """A real store whose seals fail as often as it is told."""

    failures: int
    sealed: list[int]

    async def seal_events(self, head: Seal | None, seals: Sequence[Seal]) -> bool:
        if self.failures > 0:
            self.failures -= 1
            if self.failures % 2:
                raise RuntimeError("a bug")
            raise DatabaseFailure
        self.sealed += [seal.event_id for seal in seals]
        return await self.real.seal_events(head, seals)


async def test_every_event_is_sealed_once_and_in_order_through_failures(tmp_path: Path) -> None:
    store = await Troubled.open(url_in(tmp_path))
    store.failures, store.sealed = 5, []
    sealer = Sealer(store, QUICK)
    store.on_commit(lambda _: sealer.nudge())
    running = asyncio.create_task(sealer.run())
    try:
        await announce(store, 40)
        await announce(store, 3)
        await until(lambda: len(store.sealed) == 45)
        assert store.failures == 0
        # And what comes later.
        await announce(store, 1)
        await until(lambda: len(store.sealed) == 47)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await store.close()
    place = Installation(tmp_path, NOBODY)
    assert store.sealed == [row[0] for row in place.rows("SELECT change_no FROM audit_event ORDER BY change_no")]
    assert place.run("audit", "verify", "--json").json["sealed"] == 47


async def test_at_the_end_all_is_sealed_unless_the_database_fails(tmp_path: Path) -> None:
    store = await Troubled.open(url_in(tmp_path))
    store.failures, store.sealed = 1, []
    sealer = Sealer(store, QUICK)
    try:
        await announce(store, 40)
        await sealer.finish(30)
        assert (store.failures, store.sealed) == (0, []), "was tried again while everybody waits for the end"
        await sealer.finish(30)
        assert len(store.sealed) == 41
    finally:
        await store.close()


async def test_a_seal_that_follows_another_head_is_refused(tmp_path: Path) -> None:
    store = await open_store(url_in(tmp_path))
    try:
        await announce(store, 2)
        seals = [Seal(1, 0, bytes(32)), Seal(2, 1, bytes(32))]
        assert await store.seal_events(None, seals[:1])

        assert not await store.seal_events(None, seals[:1])
        assert not await store.seal_events(Seal(1, 0, b"x" * 32), seals[1:])

        assert await store.count_unsealed_events(100) == 2
        assert await store.count_unsealed_events(1) == 1
        found = await store.read_unsealed(1)
        assert (found.head, [event.event_id for event in found.events]) == (seals[0], [2])
    finally:
        await store.close()


async def test_an_event_above_the_last_change_is_not_sealed(tmp_path: Path) -> None:
    """Somebody's own: sealed, it would be the head for ever, and the real ones would be late for ever."""
    place = Installation(tmp_path, NOBODY)
    store = await open_store(place.url)
    try:
        await announce(store, 2)
        with place.by_hand(triggers=True) as hand:
            hand.execute(
                "INSERT INTO audit_event SELECT 999, file_row, batch_row, from_status, to_status, actor, source,"
                " reason, request_id, occurred_at, credential, peer, filename FROM audit_event WHERE change_no = 1"
            )
        await Sealer(store, QUICK).finish(30)
        await announce(store, 2)
        await Sealer(store, QUICK).finish(30)
    finally:
        await store.close()
    assert place.run("audit", "verify", "--json").json["sealed"] == 6
    assert "store.counter" in place.run("check", "--json").kinds


async def test_events_of_before_the_upgrade_are_sealed_bit_by_bit(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    place = Installation(data, NOBODY)
    store = await open_store(place.url)
    for _ in range(3):
        await announce(store, 1000)
    await store.close()
    with place.by_hand() as hand:
        hand.execute("DROP TABLE audit_seal")
        hand.execute("DELETE FROM schema_migration WHERE name IN ('0003_audit_seal', '0016_origin')")
        hand.execute("CREATE TABLE audit_seal (change_no, previous_no, hash)")
    with place.by_hand(triggers=True) as hand:
        for table in ("audit_origin", "pruned_count", "audit_seal"):
            hand.execute(f"DROP TABLE {table}")
        for (name,) in hand.execute("SELECT name FROM sqlite_master WHERE name LIKE '%refused'").fetchall():
            hand.execute(f"DROP TRIGGER {name}")

    with ServerProcess(data) as server:
        await until(lambda: sealed(place) == 3003)
        assert server.terminate() == 0

    assert place.run("check", "--json").code == 0


def sealed(place: Installation) -> int:
    return int(place.rows("SELECT count(*) FROM audit_seal")[0][0])


def events(place: Installation) -> int:
    return int(place.rows("SELECT count(*) FROM audit_event")[0][0])


async def big_batch(server: ServerProcess, files: int = 10_000) -> str:
    async with grpc.aio.insecure_channel(server.target) as channel:
        specs = [pb.FileSpec(filename=f"{index}", size_bytes=1) for index in range(files)]
        made = await stub_on(channel).InitiateBatch(pb.InitiateBatchRequest(files=specs), timeout=60)
    return made.batch.batch_id


async def test_a_batch_of_ten_thousand_is_sealed_while_single_cancels_go_on(start_server: StartServer) -> None:
    server = start_server()
    place = Installation(server.data_dir, NOBODY)
    async with grpc.aio.insecure_channel(server.target) as channel:
        stub = stub_on(channel)
        singles = [
            (await stub.InitiateUpload(pb.InitiateUploadRequest(filename="a", size_bytes=1))).file.file_id
            for _ in range(100)
        ]
        batch_id = await big_batch(server)
        whole = asyncio.ensure_future(stub.CancelBatch(pb.CancelBatchRequest(batch_id=batch_id), timeout=60))
        for file_id in singles:
            answer = await stub.CancelFile(pb.CancelFileRequest(file_id=file_id), timeout=30)
            assert answer.file_id == file_id
        assert (await whole).cancelled_files_count == 10_000
        began = time.monotonic()
        await until(lambda: sealed(place) == events(place) == 20_202)
        print(f"sealed {time.monotonic() - began:.2f} s after the last cancel")  # noqa: T201 - a figure to look at
    async with httpx.AsyncClient() as client:
        metrics = (await client.get(f"{server.url}/metrics")).text
    assert "# TYPE upload_audit_unsealed_events gauge" in metrics
    ran = await asyncio.to_thread(place.run_program, "audit", "verify", "--json")
    assert (ran.code, ran.json["sealed"], ran.json["unsealed"]) == (0, 20_202, 0)


@pytest.mark.parametrize("seed", range(3))
async def test_killed_in_the_middle_of_sealing_the_chain_holds_and_is_carried_on(
    start_server: StartServer, seed: int
) -> None:
    server = start_server()
    place = Installation(server.data_dir, NOBODY)
    await big_batch(server, 5000)
    wanted = random.Random(seed).randrange(1, 4500)
    await until(lambda: sealed(place) >= wanted)
    server.kill()

    found = place.run("audit", "verify", "--json")
    assert found.code == 0
    assert found.json["sealed"] + found.json["unsealed"] == 5_001
    anchor = found.json["anchor"]

    with ServerProcess(server.data_dir) as again:
        await until(lambda: sealed(place) == 5_001)
        again.kill()
    assert place.run("audit", "verify", "--json", "--anchor", anchor).json["sealed"] == 5_001


async def test_a_chain_that_is_altered_under_a_running_server_is_told_in_its_log(start_server: StartServer) -> None:
    server = start_server()
    place = Installation(server.data_dir, NOBODY)
    await big_batch(server, 3)
    await until(lambda: sealed(place) == 4)
    with place.by_hand() as hand:
        hand.execute("DELETE FROM audit_seal WHERE change_no = 4")
    await big_batch(server, 1)

    line = await asyncio.to_thread(server.wait_log, lambda line: line.get("event") == "audit.chain_altered")

    assert (line["expected_event_id"], line["found_event_id"]) == ("4", "3")
    await until(lambda: sealed(place) == 6)


async def test_an_event_that_cannot_be_read_does_not_stop_the_service(start_server: StartServer) -> None:
    server = start_server()
    place = Installation(server.data_dir, NOBODY)
    with place.by_hand() as hand:
        hand.execute(
            "INSERT INTO audit_event VALUES (1, NULL, NULL, '', 'pending', 'u', 's', '', '', 'no time', '', '', '')"
        )
        hand.execute("UPDATE store_info SET last_change = 1")
    batch_id = await big_batch(server, 1)

    await asyncio.to_thread(server.wait_log, lambda line: line.get("event") == "audit.not_sealed")

    async with httpx.AsyncClient() as client:
        assert (await client.post(f"{server.url}/api/v1/batch/cancel/{batch_id}", json={})).status_code == 200
    report = json.loads((await asyncio.to_thread(place.run_program, "check", "--json")).out)
    assert "audit.no_row" in report["findings_by_kind"]
