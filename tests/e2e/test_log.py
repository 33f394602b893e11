"""The log of a running server, as its operator reads it."""

from __future__ import annotations

import grpc
import httpx
import websockets

from support.doors import GrpcDoor
from support.grpc_upload import UploadCall, stub_on
from support.process import LogLine, ServerProcess, StartServer
from upload.v1 import upload_pb2 as pb


def changes_of(server: ServerProcess, to: str, level: str) -> list[LogLine]:
    wanted = ("status.changed", to, level)
    return [line for line in server.log if (line.get("event"), line.get("to"), line.get("level")) == wanted]


async def test_a_batch_call_has_one_line_and_at_debug_one_for_each_file(start_server: StartServer) -> None:
    server = start_server("--log-level", "debug")
    async with grpc.aio.insecure_channel(server.target) as channel:
        stub = stub_on(channel)
        specs = [pb.FileSpec(filename=f"{number}.bin", size_bytes=1) for number in range(3)]
        answer = await stub.InitiateBatch(pb.InitiateBatchRequest(files=specs))
        batch_id, file_ids = answer.batch.batch_id, list(answer.file_ids)
        await stub.CancelFile(pb.CancelFileRequest(file_id=file_ids[2]))
        await stub.CancelBatch(pb.CancelBatchRequest(batch_id=batch_id, reason="all of it"))
    server.wait_log(lambda line: line.get("file_id") == file_ids[1] and line.get("to") == "cancelled")

    [announced] = changes_of(server, "pending", "info")
    assert (announced["batch_id"], announced["files"]) == (batch_id, 3)
    assert [line["file_id"] for line in changes_of(server, "pending", "debug")] == file_ids
    alone, together = changes_of(server, "cancelled", "info")
    assert alone["file_id"] == file_ids[2]
    assert (together["files"], together["reason"]) == (2, "all of it")
    lines = changes_of(server, "cancelled", "debug")
    assert [line["file_id"] for line in lines] == file_ids[:2]
    assert [line["event_id"] for line in lines] == [str(together["first_event_id"]), str(together["last_event_id"])]
    assert {line["source"] for line in lines} == {"batch_cancel"}
    assert not [line for line in server.log if "SELECT" in str(line)], "statements of the database"


async def test_the_log_of_every_day_has_no_lines_of_a_batchs_files(start_server: StartServer) -> None:
    server = start_server()
    async with grpc.aio.insecure_channel(server.target) as channel:
        specs = [pb.FileSpec(filename="a", size_bytes=1)] * 2
        await stub_on(channel).InitiateBatch(pb.InitiateBatchRequest(files=specs))
    assert server.terminate() == 0
    assert not changes_of(server, "pending", "debug")
    assert len(changes_of(server, "pending", "info")) == 1


async def test_a_refused_call_has_one_line_whatever_its_door_and_no_audit_event(start_server: StartServer) -> None:
    server = start_server()
    async with grpc.aio.insecure_channel(server.target) as channel, httpx.AsyncClient(base_url=server.url) as client:
        door = GrpcDoor(channel)
        file_id = (await door.call("InitiateUpload", filename="a", size_bytes=9))["file"]["file_id"]
        socket = f"ws://127.0.0.1:{server.http_port}/api/v1/upload/ws/{file_id}?offset=8"
        async with websockets.connect(socket) as page:
            await page.recv()
        tus = {"Tus-Resumable": "1.0.0", "Upload-Offset": "7", "Content-Type": "application/offset+octet-stream"}
        assert (await client.patch(f"/api/v1/tus/{file_id}", headers=tus)).status_code == 409
        await client.post("/api/v1/upload/cancel/nobody")
        await door.call("CancelFile", file_id=file_id)
        async with UploadCall(stub_on(channel), file_id) as call:
            await call.refused()
        audited = (await door.call("ListAuditEvents"))["events"]
    server.wait_log(lambda line: line.get("error") == "FILE_NOT_WRITABLE")

    assert [event["to_status"] for event in audited] == ["pending", "cancelled"]
    lines = [line for line in server.log if line["event"] == "call.refused"]
    assert {line["level"] for line in lines} == {"info"}
    assert [(line["door"], line["method"], line["error"], line["file_id"]) for line in lines] == [
        ("websocket", "UploadFile", "OFFSET_MISMATCH", file_id),
        ("tus", "UploadFile", "OFFSET_MISMATCH", file_id),
        ("http", "CancelFile", "FILE_NOT_FOUND", "nobody"),
        ("grpc", "UploadFile", "FILE_NOT_WRITABLE", file_id),
    ]
    assert (lines[0]["offset"], lines[0]["expected_offset"]) == ("8", "0")
    assert (lines[3]["status"], lines[3]["cancelled_by"]) == ("cancelled", "user")


async def test_what_a_full_server_turns_away_and_streams_that_were_stopped_are_told_at_debug(
    start_server: StartServer,
) -> None:
    server = start_server("--log-level", "debug", "--max-uploads", "1")
    async with grpc.aio.insecure_channel(server.target) as channel:
        stub, door = stub_on(channel), GrpcDoor(channel)
        file_id = (await door.call("InitiateUpload", filename="a", size_bytes=9))["file"]["file_id"]
        async with UploadCall(stub, file_id) as first:
            await first.hear_until("progress")
            async with UploadCall(stub, file_id) as second:
                await second.refused()
            await door.call("CancelFile", file_id=file_id)
            await first.refused()
    server.wait_log(lambda line: line.get("error") == "UPLOAD_CANCELLED")

    lines = [line for line in server.log if line["event"] == "call.refused"]
    assert [(line["level"], line["error"]) for line in lines] == [
        ("debug", "OVERLOADED"),
        ("debug", "UPLOAD_CANCELLED"),
    ]
