"""A disk that fails or is full: never an OK that a restart forgets, nothing half-done, and it recovers without help."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import random
import resource
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from robustness.faults.disks import Fiu, fill, small_disk
from robustness.faults.io_world import FailingDiskWorld, endure, ready
from robustness.faults.plans import DATABASE, fiu_phases, phases_at_random
from robustness.faults.shim import Calls, Fault, FaultyDisk, Files, Mode
from robustness.prove.clients import Connections
from support.doors import Door, Refusal
from support.grpc_upload import UploadCall, refusal_of_all_bytes, upload
from support.process import ServerProcess, StartServer

pytestmark = pytest.mark.timeout(180)

MIB = 1024 * 1024


@asynccontextmanager
async def connected(server: ServerProcess) -> AsyncIterator[Connections]:
    connections = Connections(server)
    try:
        yield connections
    finally:
        await connections.close()


async def initiate(door: Door, size: int = 1000) -> str:
    made = await door.call("InitiateUpload", filename="a.bin", size_bytes=size)
    return str(made["file"]["file_id"])


@asynccontextmanager
async def half_sent(clients: Connections) -> AsyncIterator[tuple[str, UploadCall]]:
    """A file of 2 MiB and its open stream, whose first half is durable."""
    file_id = await initiate(clients.doors[0], 2 * MIB)
    async with UploadCall(clients.stub, file_id) as call:
        await call.send(bytes(MIB))
        await call.hear_durable(MIB)
        yield file_id, call


@pytest.fixture
def disk(tmp_path: Path) -> FaultyDisk:
    """The disk of a server on ``tmp_path / "data"``."""
    return FaultyDisk(tmp_path / "shim", tmp_path / "data")


async def refused(door: Door, method: str, **request: str) -> str:
    try:
        await door.call(method, **request)
    except Refusal as refusal:
        return refusal.reason
    return "OK"


# Random traffic through phases of failure -----------------------------------------------------------------------------


async def test_a_failing_disk_makes_no_answer_a_lie(tmp_path: Path, disk: FaultyDisk) -> None:
    choose = random.Random("failing disk")
    phases = phases_at_random(disk, choose, 15)
    world = FailingDiskWorld(tmp_path / "data", phases, disk.environment, seed="failing disk")

    violations = await endure(world, tmp_path)

    print(f"{disk.struck_in_all} faults; told {dict(world.errors())}; slowest recovery {world.slowest_recovery:.1f} s")
    assert [str(found) for found in violations] == [], f"and more; the history is in {tmp_path}"
    assert disk.struck_in_all > 15
    assert world.errors()["DATABASE_FAILURE"] > 0
    assert world.errors()["STORAGE_FAILURE"] + world.errors()["STORAGE_FULL"] > 0


async def test_libfiu_faults_make_no_answer_a_lie(tmp_path: Path) -> None:
    fiu = Fiu(tmp_path / "fiu")
    world = FailingDiskWorld(tmp_path / "data", fiu_phases(fiu), fiu.environment, seed="libfiu")

    violations = await endure(world, tmp_path)

    print(f"told {dict(world.errors())}; slowest recovery {world.slowest_recovery:.1f} s")
    assert [str(found) for found in violations] == [], f"and more; the history is in {tmp_path}"
    assert world.errors()["DATABASE_FAILURE"] + world.errors()["OUTCOME_UNKNOWN"] > 0


# One thing at a time --------------------------------------------------------------------------------------------------


async def test_a_full_disk_is_told_and_once_there_is_room_all_works_again(
    tmp_path: Path, start_server: StartServer
) -> None:
    with small_disk(tmp_path / "disk", "32m") as folder:
        server = start_server(data_dir=folder / "data")
        reserve = folder / "reserve"
        reserve.write_bytes(bytes(4 * MIB))
        async with connected(server) as clients:
            grpc, http = clients.doors
            specs = [{"filename": f"{number}", "size_bytes": 1} for number in range(1000)]
            waiting = (await grpc.call("InitiateBatch", files=specs))["file_ids"]
            file_id = await initiate(grpc, 64 * MIB)
            refusal = await refusal_of_all_bytes(clients.stub, file_id, 64 * MIB)
            durable = (await grpc.call("GetFile", file_id=file_id))["bytes_received"]
            hog = await asyncio.to_thread(fill, folder)
            refusals = [await refused(grpc, "InitiateUpload", filename="a", size_bytes="1")]
            # A commit may still fit into the log as it is; once it does not, it is refused, and nothing has changed.
            while refusals[-1] != "DATABASE_FAILURE" and waiting:
                refusals.append(await refused(http, "CancelFile", file_id=waiting.pop(), reason="r" * 500))
            hog.unlink()
            reserve.unlink()

            async with asyncio.timeout(20):
                while not await ready(server):  # noqa: ASYNC110 - another process
                    await asyncio.sleep(0.05)
            answer = await grpc.call("CancelFile", file_id=file_id, request_id="big")
            again = await grpc.call("CancelFile", file_id=file_id, request_id="big")
            # The cancel has made room by itself.
            small = await initiate(grpc, MIB)
            completed = await upload(clients.stub, small, bytes(MIB))

    assert refusal.reason in {"STORAGE_FULL", "DATABASE_FAILURE"}
    assert refusals[0] == "STORAGE_FULL"
    assert refusals[-1] == "DATABASE_FAILURE"
    assert set(refusals[1:]) <= {"OK", "DATABASE_FAILURE"}
    assert 0 < int(durable) < 64 * MIB
    assert again == answer
    assert completed.sha256 == hashlib.sha256(bytes(MIB)).hexdigest()


async def test_a_limit_on_the_size_of_files_fails_the_upload_and_not_the_server(start_server: StartServer) -> None:
    server = start_server()
    limits = resource.prlimit(server.pid, resource.RLIMIT_FSIZE)
    async with connected(server) as clients:
        door = clients.doors[0]
        file_id = await initiate(door, 24 * MIB)
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (12 * MIB, limits[1]))
        refusal = await refusal_of_all_bytes(clients.stub, file_id, 24 * MIB)
        file = await door.call("GetFile", file_id=file_id)
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, limits)
        durable = int(file["bytes_received"])
        completed = await upload(clients.stub, file_id, bytes(24 * MIB - durable), offset=durable)

    assert refusal.reason == "STORAGE_FAILURE"
    assert durable <= 12 * MIB
    assert completed.sha256 == hashlib.sha256(bytes(24 * MIB)).hexdigest()


async def test_a_sync_that_failed_is_never_believed(disk: FaultyDisk, start_server: StartServer) -> None:
    server = start_server(environment=dict(disk.environment))
    async with connected(server) as clients:
        door = clients.doors[0]
        async with half_sent(clients) as (file_id, call):
            disk.set(Fault(Mode.FAIL, Calls.SYNC, Files.BYTES, times=1))
            await call.send(bytes(MIB))
            await call.commit()
            refusal = await call.refused()
        file = await door.call("GetFile", file_id=file_id)
        completed = await upload(clients.stub, file_id, bytes(MIB), offset=MIB)

    assert disk.struck == 1
    assert refusal.reason == "STORAGE_FAILURE"
    assert (file["status"], file["bytes_received"]) == ("UPLOAD_STATUS_UPLOADING", str(MIB))
    assert completed.sha256 == hashlib.sha256(bytes(2 * MIB)).hexdigest()


# The log's frames are written, its sync fails, and so does every look at what became of it: nobody knows.
async def test_a_commit_whose_fate_is_not_known_is_told_so_and_a_retry_tells_the_truth(
    disk: FaultyDisk, start_server: StartServer
) -> None:
    server = start_server(environment=dict(disk.environment))
    async with connected(server) as clients:
        door = clients.doors[0]
        file_id = await initiate(door)
        disk.set(Fault(Mode.FAIL_AFTER, Calls.SYNC, DATABASE))
        refusals = await refused(door, "CancelFile", file_id=file_id, request_id="r")
        meanwhile = await refused(door, "CancelFile", file_id=file_id, request_id="r")
        disk.clear()
        first = await door.call("CancelFile", file_id=file_id, request_id="r")
        second = await door.call("CancelFile", file_id=file_id, request_id="r")
    server.kill()
    server = start_server()
    async with connected(server) as clients:
        third = await clients.doors[1].call("CancelFile", file_id=file_id, request_id="r")

    assert refusals == "OUTCOME_UNKNOWN"
    assert meanwhile in {"OUTCOME_UNKNOWN", "DATABASE_FAILURE"}
    assert first == second == third


async def test_a_cancel_that_the_database_cannot_write_changes_nothing(
    disk: FaultyDisk, start_server: StartServer
) -> None:
    server = start_server(environment=dict(disk.environment))
    async with connected(server) as clients:
        door = clients.doors[0]
        files = [{"filename": name, "size_bytes": 1} for name in "ab"]
        made = await door.call("InitiateBatch", files=files)
        file_id, batch_id = made["file_ids"][0], made["batch"]["batch_id"]
        disk.set(Fault(Mode.FAIL, Calls.WRITE, DATABASE, error=errno.ENOSPC))
        refusals = [
            await refused(each, method, **target)
            for each in clients.doors
            for method, target in (("CancelFile", {"file_id": file_id}), ("CancelBatch", {"batch_id": batch_id}))
        ]
        meanwhile = await door.call("GetBatch", batch_id=batch_id)
        listed = await door.call("ListFiles", batch_id=batch_id)
        disk.clear()
        events = await door.call("ListAuditEvents", batch_id=batch_id)
        cancelled = await door.call("CancelBatch", batch_id=batch_id)

    assert refusals == ["DATABASE_FAILURE"] * 4
    assert meanwhile == made["batch"]
    assert [file["revision"] for file in listed["files"]] == ["1", "1"]
    assert len(events["events"]) == 3
    assert cancelled["cancelled_files_count"] == 2


async def test_bytes_that_could_not_be_deleted_are_deleted_later(disk: FaultyDisk, start_server: StartServer) -> None:
    server = start_server(environment=dict(disk.environment))
    async with connected(server) as clients:
        door = clients.doors[0]
        async with half_sent(clients) as (file_id, _):
            disk.set(Fault(Mode.FAIL, Calls.UNLINK, Files.BYTES))
            await door.call("CancelFile", file_id=file_id)
        await asyncio.to_thread(server.wait_log, lambda line: line["event"] == "bytes could not be deleted")
        assert server.stored_bytes() == MIB
        server.kill()
        disk.clear()
        server = start_server(environment=dict(disk.environment))
        await asyncio.to_thread(server.wait_log, lambda line: line["event"] == "bytes deleted")

    assert server.stored_bytes() == 0
