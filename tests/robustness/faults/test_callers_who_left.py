"""A caller that leaves while a message to it is under way has left: that is no error of the server's."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from google.protobuf.message import Message

from conftest import open_channel
from robustness.faults.deaf import DeafCaller
from robustness.faults.vitals import come_to_rest, vitals
from support.doors import GrpcDoor
from support.process import StartServer
from upload.v1 import upload_pb2 as pb

pytestmark = pytest.mark.timeout(120)

_CALLS = 40


@pytest.mark.parametrize("method", ["WatchStatus", "ListFiles", "UploadFile"])
async def test_who_resets_a_stream_under_a_write_makes_no_error(method: str, start_server: StartServer) -> None:
    server = start_server()
    async with open_channel(server) as channel:
        door = GrpcDoor(channel)
        await door.call("InitiateBatch", files=[{"filename": "x" * 250, "size_bytes": 1}] * 50)
        made = await door.call("InitiateUpload", filename="a", size_bytes=10)
    requests: dict[str, Message] = {
        "WatchStatus": pb.WatchStatusRequest(all=True),
        "ListFiles": pb.ListFilesRequest(page_size=50),
        "UploadFile": pb.UploadFileRequest(header=pb.UploadHeader(file_id=made["file"]["file_id"])),
    }
    baseline = await vitals(server)
    # With a window of 0 the first message waits for it, with one of 1,000 bytes a later one.
    for window in (0, 0, 1000, 1000):
        async with asyncio.timeout(30), DeafCaller(server.grpc_port, window) as caller:
            ends = method != "UploadFile"
            streams = [caller.call(method, requests[method], ends=ends) for _ in range(_CALLS)]
            await caller.wait_begun(*streams)
            caller.reset(*streams)
            # What is answered after it shows that the server has read the resets.
            await caller.wait_ended(caller.call("GetFile", pb.GetFileRequest(file_id="none")))
    await come_to_rest(server, baseline)
    async with httpx.AsyncClient(base_url=server.url) as client:
        counted = [line for line in (await client.get("/metrics")).text.splitlines() if f'method="{method}"' in line]
    assert server.terminate() == 0
    assert [line for line in server.log if line["level"] not in {"debug", "info"}] == []
    assert [line for line in counted if "INTERNAL" in line or "UNKNOWN" in line] == []
