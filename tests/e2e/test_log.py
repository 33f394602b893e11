"""The log of a running server, as its operator reads it."""

from __future__ import annotations

import grpc

from support.grpc_upload import stub_on
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


async def test_the_log_of_every_day_has_no_lines_of_a_batchs_files(start_server: StartServer) -> None:
    server = start_server()
    async with grpc.aio.insecure_channel(server.target) as channel:
        specs = [pb.FileSpec(filename="a", size_bytes=1)] * 2
        await stub_on(channel).InitiateBatch(pb.InitiateBatchRequest(files=specs))
    assert server.terminate() == 0
    assert not changes_of(server, "pending", "debug")
    assert len(changes_of(server, "pending", "info")) == 1
