"""Callers that do not read their answers: what waits for them is counted, lists are refused then, cancels go on."""

from __future__ import annotations

import asyncio

import pytest

from conftest import open_channel
from robustness.faults.deaf import DeafCaller
from robustness.faults.vitals import Memory
from support.doors import GrpcDoor, Refusal
from support.grpc_upload import stub_on
from support.process import StartServer
from upload.v1 import upload_pb2 as pb

pytestmark = pytest.mark.timeout(120)

MIB = 1024 * 1024
_LISTS = 600


async def test_lists_that_nobody_reads_are_bounded_and_hold_up_no_cancel(start_server: StartServer) -> None:
    """Each cost its caller 130 bytes and the service a megabyte, for as long as pings were answered."""
    server = start_server()
    async with open_channel(server) as channel, asyncio.timeout(100):
        stub, door = stub_on(channel), GrpcDoor(channel)
        long = pb.FileSpec(filename="ä" * 127, content_type="x" * 127, size_bytes=1)
        batch = (await stub.InitiateBatch(pb.InitiateBatchRequest(files=[long] * 1000))).batch
        await stub.CancelBatch(pb.CancelBatchRequest(batch_id=batch.batch_id, reason="\U0001f600" * 500))
        memory = Memory(server.pid)
        idle = memory.now
        async with DeafCaller(server.grpc_port) as caller:
            for _ in range(2):
                streams = [caller.call("ListFiles", pb.ListFilesRequest(page_size=1000)) for _ in range(_LISTS // 2)]
                await caller.wait_begun(*streams)
            # A refusal has no message, so it is heard all the same.
            assert len(caller.ended) > _LISTS // 2
            assert memory.now - idle < 200 * MIB
            with pytest.raises(Refusal) as refused:
                await door.call("ListFiles")
            assert (refused.value.reason, refused.value.retry_seconds) == ("OVERLOADED", 1)
            # Whatever is small has room of its own, and cancels the most.
            made = await door.call("InitiateUpload", filename="a", size_bytes=1)
            await door.call("GetFile", file_id=made["file"]["file_id"])
            await door.call("CancelFile", file_id=made["file"]["file_id"])
            # Who reads after all gets what was made.
            caller.listen(1)
            await caller.wait_ended(1)
            assert caller.data[1] > 200 * 1024
        # The memory is free as soon as the caller is gone.
        while await _refused(door):  # noqa: ASYNC110 - what the server counts has no event
            await asyncio.sleep(0.01)


async def _refused(door: GrpcDoor) -> bool:
    try:
        await door.call("ListFiles")
    except Refusal as error:
        return error.reason == "OVERLOADED"
    return False
