"""`check` beside a running server: no false alarm under load, what is wrong is found, nothing is mended."""

from __future__ import annotations

import asyncio
import itertools
import os
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

import grpc
import httpx
import pytest

from support.doors import Refusal
from support.grpc_upload import UploadCall, stub_on, upload
from support.process import ServerProcess, StartServer
from unit.upkeep.installation import DATA, NOBODY, Installation, live
from upload.v1 import upload_pb2 as pb
from upload_server.domain.runs import Run
from upload_server.sink.disk.sink import DiskSink
from upload_server.store.inspection import Debt
from upload_server.store.open import store_at
from upload_server.upkeep.check.findings import Finding, Mend, Report
from upload_server.upkeep.check.mend import mend
from upload_server.upkeep.check.rows import check_debt
from upload_server.upkeep.check.storage import Storage

ORPHANS = "upload_orphan_bytes "


async def busy(server: ServerProcess, name: str, stop: asyncio.Event) -> int:
    """Announce, send, cancel half-way, complete, batch by batch, until told to stop; returns how often."""
    async with grpc.aio.insecure_channel(server.target) as channel:
        stub = stub_on(channel)
        for turn in itertools.count():
            if stop.is_set():
                return turn
            specs = [pb.FileSpec(filename=f"{turn}/{index}", size_bytes=len(DATA)) for index in range(3)]
            made = await stub.InitiateBatch(pb.InitiateBatchRequest(files=specs, request_id=f"{name} {turn}"))
            await upload(stub, made.file_ids[0], DATA)
            async with UploadCall(stub, made.file_ids[1]) as call:
                await call.send(DATA[:5000])
                await stub.CancelFile(pb.CancelFileRequest(file_id=made.file_ids[1], request_id=f"{name} c{turn}"))
                try:
                    await call.hear_until("stopped")
                except Refusal as refusal:
                    # Cancelled before the stream was there.
                    assert refusal.reason == "FILE_NOT_WRITABLE"  # noqa: PT017
            await stub.CancelBatch(pb.CancelBatchRequest(batch_id=made.batch.batch_id))
    raise AssertionError


async def test_no_false_alarm_under_load(start_server: StartServer) -> None:
    server = start_server()
    place = Installation(server.data_dir, NOBODY)
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        clients = [group.create_task(busy(server, str(number), stop)) for number in range(4)]
        try:
            for _ in range(3):
                ran = await asyncio.to_thread(place.run_program, "check", "--json", "--hash")
                assert (ran.code, ran.json["findings"]) == (0, [])
                assert ran.json["running"] is True
                verified = await asyncio.to_thread(place.run_program, "audit", "verify", "--json")
                assert verified.code == 0
        finally:
            stop.set()
    assert all(client.result() > 0 for client in clients)
    assert server.terminate() == 0
    last = place.run_program("check", "--json", "--hash")
    assert (last.code, last.json["running"]) == (0, False)


async def test_what_is_wrong_is_found_beside_a_running_server(start_server: StartServer) -> None:
    server = start_server()
    place = Installation(server.data_dir, await live(server))
    place.bytes_of(place.ids.completed).unlink()
    stranger = place.bytes_of(str(uuid.UUID(int=3, version=4)))
    stranger.parent.mkdir(exist_ok=True)
    stranger.write_bytes(b"whose?")

    ran = await asyncio.to_thread(place.run_program, "check", "--json")

    assert (ran.code, ran.kinds) == (1, ["bytes.missing", "bytes.unknown"])


async def test_nothing_is_mended_while_a_server_runs(start_server: StartServer) -> None:
    server = start_server()
    place = Installation(server.data_dir, NOBODY)

    ran = await asyncio.to_thread(place.run_program, "check", "--repair")

    assert (ran.code, ran.out) == (2, "")
    assert f"in use by another upload-server (pid {server.pid})" in ran.err
    assert server.terminate() == 0


async def test_a_killed_server_is_not_taken_for_a_running_one(start_server: StartServer) -> None:
    server = start_server()
    server.kill()
    # Its pid is in the lock file still.
    ran = await asyncio.to_thread(Installation(server.data_dir, NOBODY).run_program, "check", "--json")

    assert (ran.code, ran.json["running"]) == (0, False)


async def test_orphan_bytes_are_shown_by_the_metrics(start_server: StartServer) -> None:
    stranger = str(uuid.UUID(int=5, version=4))
    server = start_server()
    place = Installation(server.data_dir, await live(server))
    assert server.terminate() == 0
    path = place.bytes_of(stranger)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(os.urandom(1234))
    again = start_server()

    async with httpx.AsyncClient() as client, asyncio.timeout(30):
        while f"{ORPHANS}1234.0" not in (await client.get(f"{again.url}/metrics")).text.splitlines():  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    assert path.exists()


def test_a_debt_that_is_overdue_is_told() -> None:
    debt = Debt(2, "some id", "cancelled", "2026-01-01 00:00:00.000000")

    assert [finding.kind for finding in check_debt(debt, "2026-01-01 00:10:00.000000")] == ["debt.overdue"]
    assert not list(check_debt(debt, "2025-12-31 00:00:00.000000"))
    assert not list(check_debt(debt, ""))


class Moving(DiskSink):
    """A storage that changes between the reading of a row and the look at its bytes."""

    def __init__(self, root: Path, change: Callable[[], None]) -> None:
        super().__init__(root)
        self._change = change
        self._changed = False

    def size(self, file_id: str, runs: Sequence[Run]) -> int:
        if not self._changed:
            self._changed = True
            self._change()
        return super().size(file_id, runs)


@pytest.mark.parametrize("running", [True, False])
def test_what_moved_while_it_was_looked_at_is_looked_at_again(place: Installation, running: bool) -> None:
    def cancel_all_open() -> None:
        with place.by_hand() as hand:
            hand.execute("UPDATE file SET status = 'cancelled' WHERE file_id = ?", (place.ids.uploading,))
        place.bytes_of(place.ids.uploading).unlink()

    inspection = store_at(place.url).inspect()
    report = Report(running=running)
    try:
        Storage(inspection, Moving(place.folder / "bytes", cancel_all_open), report, 0.0).check(hashes=False)
    finally:
        inspection.close()

    assert report.by_kind == ({} if running else {"bytes.missing": 1})


def test_bytes_of_files_that_may_keep_them_are_never_deleted_whatever_a_finding_says(place: Installation) -> None:
    kept = (place.ids.completed, place.ids.uploading)
    report = Report()
    for file_id in kept:
        for kind in (Mend.DELETE_BYTES, Mend.DELETE_UNKNOWN):
            report.add(Finding("bytes.orphan", "", "", {"file_id": file_id}, kind, fences=(1,)))
    inspection, mending = store_at(place.url).inspect(), store_at(place.url).mend()
    try:
        mend(report, inspection, mending, DiskSink(place.folder / "bytes"), delete_unknown=True)
    finally:
        inspection.close()
        mending.close()

    assert not report.mended
    assert all(place.bytes_of(file_id).exists() for file_id in kept)
