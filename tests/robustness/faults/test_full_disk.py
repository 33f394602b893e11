"""A disk that uploads have filled: they are refused, everything else goes on, and cancels make room again."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

import grpc
import httpx
import pytest

from robustness.faults.disks import small_disk
from support.grpc_upload import UploadCall, stub_on, upload
from support.process import START_SECONDS, ServerProcess, gone_from_disk
from upload.v1 import upload_pb2 as pb

pytestmark = pytest.mark.timeout(4 * START_SECONDS)

MIB = 1024 * 1024


async def room(server: ServerProcess) -> float:
    """What the server says that uploads may still store."""
    async with httpx.AsyncClient(base_url=server.url) as client:
        assert (await client.get("/readyz")).status_code == 200
        lines = (await client.get("/metrics")).text.splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("upload_storage_room_bytes "))


async def test_uploads_leave_room_for_cancels_which_make_room_for_uploads(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "32m") as folder, ServerProcess(folder / "data") as server:
        async with grpc.aio.insecure_channel(server.target) as channel:
            stub = stub_on(channel)
            specs = [pb.FileSpec(filename=f"{index}", size_bytes=1) for index in range(1000)]
            batch = (await stub.InitiateBatch(pb.InitiateBatchRequest(files=specs))).batch.batch_id
            made = await stub.InitiateUpload(pb.InitiateUploadRequest(filename="big", size_bytes=64 * MIB))
            big = made.file.file_id
            assert await room(server) > 24 * MIB

            async with UploadCall(stub, big) as call:
                sending = asyncio.create_task(_send(call))
                refusal = await call.refused()
                sending.cancel()
            assert refusal.reason == "STORAGE_FAILURE"
            line = await asyncio.to_thread(
                server.wait_log, lambda line: line["event"] == "storage failed under an upload"
            )
            assert (line["file_id"], line["reason"]) == (big, "no_room")
            # Ready all the same: nobody else has these bytes, and only a cancel makes room.
            assert await room(server) < MIB

            cancelled = await stub.CancelBatch(pb.CancelBatchRequest(batch_id=batch))
            assert cancelled.cancelled_files_count == 1000
            await stub.CancelFile(pb.CancelFileRequest(file_id=big))
            await gone_from_disk(server, big)
            assert await room(server) > 20 * MIB
            made = await stub.InitiateUpload(pb.InitiateUploadRequest(filename="next", size_bytes=4 * MIB))
            completed = await upload(stub, made.file.file_id, bytes(4 * MIB))
    assert completed.sha256 == hashlib.sha256(bytes(4 * MIB)).hexdigest()


async def _send(call: UploadCall) -> None:
    for _ in range(64):
        await call.send(bytes(MIB))
