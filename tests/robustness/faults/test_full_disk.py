"""A disk that uploads or announcements have filled: both are refused, everything else goes on, cancels make room."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import itertools
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from robustness.faults.disks import fill, small_disk
from support.doors import GrpcDoor, HttpDoor, Json, Refusal
from support.grpc_upload import UploadCall, refusal_of_all_bytes, stub_on, upload
from support.process import START_SECONDS, ServerProcess, gone_from_disk
from upload.v1 import upload_pb2 as pb

pytestmark = pytest.mark.timeout(4 * START_SECONDS)

KIB = 1024
MIB = 1024 * KIB


async def room(server: ServerProcess, of: str = "storage") -> float:
    """What the server says that uploads may still store, or announcements of the database."""
    async with httpx.AsyncClient(base_url=server.url) as client:
        assert (await client.get("/readyz")).status_code == 200
        lines = (await client.get("/metrics")).text.splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(f"upload_{of}_room_bytes "))


async def test_uploads_leave_room_for_cancels_which_make_room_for_uploads(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "32m") as folder, ServerProcess(folder / "data") as server:
        async with grpc.aio.insecure_channel(server.target) as channel:
            stub = stub_on(channel)
            specs = [pb.FileSpec(filename=f"{index}", size_bytes=1) for index in range(400)]
            batch = (await stub.InitiateBatch(pb.InitiateBatchRequest(files=specs))).batch.batch_id
            made = await stub.InitiateUpload(pb.InitiateUploadRequest(filename="big", size_bytes=64 * MIB))
            big = made.file.file_id
            assert await room(server) > 24 * MIB

            refusal = await refusal_of_all_bytes(stub, big, 64 * MIB)
            assert (refusal.code, refusal.reason) == ("RESOURCE_EXHAUSTED", "STORAGE_FULL")
            line = await asyncio.to_thread(
                server.wait_log, lambda line: line["event"] == "storage failed under an upload"
            )
            assert (line["file_id"], line["reason"]) == (big, "no_room")
            # Ready all the same: nobody else has these bytes, and only a cancel makes room.
            assert await room(server) < MIB

            cancelled = await stub.CancelBatch(pb.CancelBatchRequest(batch_id=batch))
            assert cancelled.cancelled_files_count == 400
            await stub.CancelFile(pb.CancelFileRequest(file_id=big))
            await gone_from_disk(server, big)
            assert await room(server) > 20 * MIB
            made = await stub.InitiateUpload(pb.InitiateUploadRequest(filename="next", size_bytes=4 * MIB))
            completed = await upload(stub, made.file.file_id, bytes(4 * MIB))
    assert completed.sha256 == hashlib.sha256(bytes(4 * MIB)).hexdigest()


async def test_many_uploads_at_once_leave_the_room_of_cancels_too(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "32m") as folder, ServerProcess(folder / "data") as server:
        async with grpc.aio.insecure_channel(server.target) as channel, contextlib.AsyncExitStack() as calls:
            stub, door = stub_on(channel), GrpcDoor(channel)
            specs = [{"filename": f"{number}", "size_bytes": 64 * MIB} for number in range(60)]
            made = await door.call("InitiateBatch", files=specs)
            streams = [await calls.enter_async_context(UploadCall(stub, file_id)) for file_id in made["file_ids"]]
            for stream in streams:
                await stream.send(b"x")
            await asyncio.gather(*(stream.hear_durable(1) for stream in streams))
            sending = [asyncio.create_task(_send(stream, 64 * KIB)) for stream in streams]
            # A sender that writes on may not hear why its stream has ended: the log says it of each.
            await asyncio.gather(*(stream.refused() for stream in streams), return_exceptions=True)
            for task in sending:
                task.cancel()
            full = {("no_room", file_id) for file_id in made["file_ids"]}
            for _ in made["file_ids"]:
                line = await asyncio.to_thread(
                    server.wait_log, lambda line: (line.get("reason"), line.get("file_id")) in full
                )
                full.remove((str(line["reason"]), str(line["file_id"])))
            disk = os.statvfs(folder)
            # A sixteenth of the disk and what is kept for the 60, less what the database has written meanwhile.
            assert disk.f_bavail * disk.f_frsize > MIB
            await door.call("CancelBatch", batch_id=made["batch"]["batch_id"], reason="r" * 500)
            await gone_from_disk(server, made["file_ids"][0])


async def announce_until_refused(door: GrpcDoor, name: str, files: int) -> tuple[list[str], list[str], Refusal]:
    """Announce batches of long names, then single files, until neither finds room; returns batches and files."""
    specs = [{"filename": f"{name}{index:05}", "size_bytes": 1} for index in range(files)]
    batches, refusal = await _until_refused(door, "InitiateBatch", files=specs)
    assert (refusal.code, refusal.reason) == ("RESOURCE_EXHAUSTED", "STORAGE_FULL")
    singles, refusal = await _until_refused(door, "InitiateUpload", filename=name, size_bytes=1)
    assert refusal.reason == "STORAGE_FULL"
    ids = [answer["batch"]["batch_id"] for answer in batches], [answer["file"]["file_id"] for answer in singles]
    return *ids, refusal


async def _until_refused(door: GrpcDoor, method: str, **request: Any) -> tuple[list[Json], Refusal]:
    answers: list[Json] = []
    while True:
        try:
            answers.append(await door.call(method, **request))
        except Refusal as refusal:
            return answers, refusal


async def refused_by_every_door(server: ServerProcess) -> None:
    """An announcement is refused over HTTP and tus as well, each in its words."""
    async with httpx.AsyncClient(base_url=server.url) as client:
        for method, request in (
            ("InitiateUpload", {"filename": "x" * 255, "size_bytes": 1}),
            ("InitiateBatch", {"files": [{"filename": "x" * 255, "size_bytes": 1}]}),
        ):
            with pytest.raises(Refusal) as raised:
                await HttpDoor(client).call(method, **request)
            assert raised.value.reason == "STORAGE_FULL"
            assert raised.value.metadata["limit"] in {"disk", "max_database_bytes"}
            assert str(server.data_dir) not in raised.value.message
        name = base64.b64encode(b"x" * 255).decode()
        headers = {"tus-resumable": "1.0.0", "upload-length": "1", "upload-metadata": f"filename {name}"}
        answer = await client.post("/api/v1/tus", headers=headers)
        assert answer.status_code == 507
        assert "STORAGE_FULL" in answer.text


async def all_ends_commit(door: GrpcDoor, batches: Sequence[str], singles: Sequence[str], reason: str) -> None:
    """Every open file can still be cancelled, alone or with its batch, and by a call that is repeated."""
    for file_id in singles[:200]:
        request = {"file_id": file_id, "reason": reason, "request_id": file_id}
        answer = await door.call("CancelFile", **request)
        assert await door.call("CancelFile", **request) == answer
    for batch_id in batches:
        await door.call("CancelBatch", batch_id=batch_id, reason=reason, request_id=batch_id)
        batch = await door.call("GetBatch", batch_id=batch_id)
        assert batch["status"] == "BATCH_STATUS_CANCELLED"
        # The longest are cut short, since they would take the room of others.
        assert reason.startswith(batch["cancel_reason"])
        assert len(batch["cancel_reason"]) >= min(len(reason), 128)


@pytest.mark.parametrize("reason", ["", "\N{WASTEBASKET}" * 500], ids=["none", "longest"])
async def test_announcements_leave_room_for_every_end_of_what_is_open(tmp_path: Path, reason: str) -> None:
    data = b"x" * 2000
    with small_disk(tmp_path / "disk", "150m") as folder:
        with ServerProcess(folder / "data") as server:
            async with grpc.aio.insecure_channel(server.target) as channel:
                stub, door = stub_on(channel), GrpcDoor(channel)
                made = await door.call("InitiateUpload", filename="before", size_bytes=len(data))
                async with UploadCall(stub, made["file"]["file_id"]) as call:
                    await call.send(data[:1000])
                    await call.hear_durable(1000)
                    batches, singles, refusal = await announce_until_refused(door, "n" * 250, 10_000)
                    assert len(batches) > 1
                    assert refusal.metadata["limit"] == "disk"
                    assert int(refusal.metadata["kept_bytes"]) > 10 * MIB
                    await refused_by_every_door(server)
                    assert await room(server, "database") < MIB
                    await all_ends_commit(door, batches[1:], singles, reason)
                    await call.send(data[1000:])
                    await call.commit(hashlib.sha256(data).hexdigest())
                    await call.hear_until("completed")
                # What the ends have given back is there for new announcements.
                await door.call("InitiateUpload", filename="n" * 255, size_bytes=1)
            server.terminate()
        # Nobody sends to the rest: it expires, on the same disk.
        with ServerProcess(folder / "data", ("--upload-ttl", "1s")) as server:
            async with grpc.aio.insecure_channel(server.target) as channel, asyncio.timeout(30):
                door = GrpcDoor(channel)
                pending = {"status": "UPLOAD_STATUS_PENDING", "page_size": 1}
                while (await door.call("ListFiles", **pending))["files"]:  # noqa: ASYNC110 - another process
                    await asyncio.sleep(0.1)
                assert (await door.call("GetBatch", batch_id=batches[0]))["status"] == "BATCH_STATUS_FAILED"
            assert not [line for line in server.log if line["level"] == "error"]


async def test_a_database_on_a_disk_of_its_own_has_its_own_room(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "24m") as folder:
        elsewhere = ("--database-url", f"sqlite:///{folder / 'rows.sqlite3'}")
        with ServerProcess(tmp_path / "data", elsewhere) as server:
            async with grpc.aio.insecure_channel(server.target) as channel:
                door = GrpcDoor(channel)
                made = await door.call("InitiateUpload", filename="big", size_bytes=64 * MIB)
                batches, singles, _ = await announce_until_refused(door, "n" * 250, 200)
                # The bytes lie elsewhere, where there is room.
                await upload(stub_on(channel), made["file"]["file_id"], bytes(64 * MIB))
                await all_ends_commit(door, batches, singles, "r" * 500)
        # And the other way round: bytes have filled their disk, rows lie elsewhere.
        elsewhere = ("--database-url", f"sqlite:///{tmp_path / 'rows.sqlite3'}")
        with ServerProcess(folder / "data", elsewhere) as server:
            async with grpc.aio.insecure_channel(server.target) as channel:
                door = GrpcDoor(channel)
                made = await door.call("InitiateUpload", filename="big", size_bytes=64 * MIB)
                refusal = await refusal_of_all_bytes(stub_on(channel), made["file"]["file_id"], 64 * MIB)
                assert refusal.reason == "STORAGE_FULL"
                await door.call("InitiateUpload", filename="n" * 255, size_bytes=1)


async def test_a_database_within_its_bound_refuses_announcements_alone(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "data", ("--max-database-bytes", "4MiB")) as server:
        async with grpc.aio.insecure_channel(server.target) as channel:
            door = GrpcDoor(channel)
            batches, singles, refusal = await announce_until_refused(door, "n" * 250, 100)
            assert len(batches) > 1
            assert refusal.metadata["limit"] == "max_database_bytes"
            assert refusal.metadata["limit_bytes"] == str(4 * MIB)
            await refused_by_every_door(server)
            await upload(stub_on(channel), singles.pop(), b"x")
            await all_ends_commit(door, batches, singles, "r" * 500)
            line = server.wait_log(lambda line: "announcements are refused" in str(line["event"]))
            assert "--max-database-bytes" in str(line["event"])
        server.terminate()
    assert (tmp_path / "data" / "upload.sqlite3").stat().st_size <= 4 * MIB


def take_all_inodes(folder: Path) -> None:
    """Make empty files until no more can be made."""
    with contextlib.suppress(OSError):
        for number in itertools.count():
            (folder / f"hog{number}").touch()


@pytest.mark.parametrize(("disk", "fill_up"), [("48m", fill), ("48m,nr_inodes=100", take_all_inodes)])
async def test_a_server_starts_on_a_disk_that_is_full_to_the_last(
    tmp_path: Path, disk: str, fill_up: Callable[[Path], object]
) -> None:
    with small_disk(tmp_path / "disk", disk) as folder:
        # The second time there is a ballast again: the stop before it has made it.
        for _ in range(2):
            with ServerProcess(folder / "data") as server:
                async with grpc.aio.insecure_channel(server.target) as channel:
                    stub, door = stub_on(channel), GrpcDoor(channel)
                    made = await door.call("InitiateUpload", filename="big", size_bytes=16 * MIB)
                    file_id = made["file"]["file_id"]
                    async with UploadCall(stub, file_id) as call:
                        for _ in range(12):
                            await call.send(bytes(MIB))
                        await call.hear_durable(12 * MIB)
                assert server.terminate() == 0
            fill_up(folder)
            with ServerProcess(folder / "data") as server:
                assert await room(server) == 0
                async with grpc.aio.insecure_channel(server.target) as channel:
                    stub, door = stub_on(channel), GrpcDoor(channel)
                    with pytest.raises(Refusal) as refused:
                        await door.call("InitiateUpload", filename="next", size_bytes=MIB)
                    assert refused.value.reason == "STORAGE_FULL"
                    await door.call("CancelFile", file_id=file_id, reason="r" * 500, request_id=file_id)
                    await gone_from_disk(server, file_id)
                    for hog in list(folder.glob("hog*"))[:40]:
                        hog.unlink()
                    made = await door.call("InitiateUpload", filename="next", size_bytes=MIB)
                    await upload(stub, made["file"]["file_id"], bytes(MIB))
                assert server.terminate() == 0
                assert not [line for line in server.log if line["level"] == "error"]
            for hog in folder.glob("hog*"):
                hog.unlink()


@pytest.mark.parametrize(
    ("disk", "fill_up", "why"), [("48m", fill, "no space is left"), ("48m,nr_inodes=100", take_all_inodes, "no inodes")]
)
async def test_a_start_that_finds_no_room_says_what_is_used_up(
    tmp_path: Path, disk: str, fill_up: Callable[[Path], object], why: str
) -> None:
    with small_disk(tmp_path / "disk", disk) as folder:
        with ServerProcess(folder / "data") as server:
            server.terminate()
        shutil.rmtree(folder / "data" / "upload.sqlite3.ballast")
        fill_up(folder)
        with pytest.raises(AssertionError, match=why):
            ServerProcess(folder / "data")


async def _send(call: UploadCall, chunk: int) -> None:
    for _ in range(64 * MIB // chunk):
        await call.send(bytes(chunk))
