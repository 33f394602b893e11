"""What a request may hold on the wire is counted before it becomes objects, and decoded a piece a turn."""

from __future__ import annotations

import asyncio

import pytest

from transcoder import RequestLimits
from upload.v1 import upload_pb2 as pb
from upload_server.domain.errors import InvalidField, UnexpectedMessage
from upload_server.doors.bounds import method_limits, request_limits
from upload_server.doors.rpc.wire import Decoder

MIB = 1024 * 1024
LIMITS = method_limits(8 * MIB)
BATCH, WATCH, REQUEST = LIMITS["InitiateBatch"], LIMITS["WatchStatus"], request_limits(8 * MIB)
FILE = pb.InitiateBatchRequest(files=[pb.FileSpec(filename="a")]).SerializeToString()
# A field that no message has: number 31, a varint.
UNKNOWN = b"\xf8\x01\x00"


async def refused(kind: type, limits: RequestLimits, raw: bytes) -> dict[str, str]:
    with pytest.raises(InvalidField) as caught:
        await Decoder(kind, limits).decode(raw)
    return caught.value.metadata


@pytest.mark.parametrize(
    ("kind", "limits", "raw", "field", "limit"),
    [
        (pb.InitiateBatchRequest, BATCH, b"\n\0" * 10_001, "files", 10_000),
        (pb.InitiateBatchRequest, BATCH, b"\n\0" * (4 * MIB), "files", 10_000),
        (pb.InitiateBatchRequest, BATCH, FILE * 10_001, "files", 10_000),
        (pb.InitiateBatchRequest, BATCH, b"\x12\0" * (4 * MIB), "request", 64),
        (pb.InitiateBatchRequest, BATCH, UNKNOWN * 100_000, "request", 64),
        (pb.InitiateBatchRequest, BATCH, FILE + UNKNOWN * 65, "request", 64),
        (pb.InitiateBatchRequest, BATCH, b"\n\x80\x80\x04" + bytes(65_536), "files", 32 * 1024),
        (pb.InitiateBatchRequest, BATCH, bytes(8 * MIB + 1), "request", 8 * MIB),
        (pb.WatchStatusRequest, WATCH, b"\n\0" * 1001, "file_ids", 1000),
        (pb.WatchStatusRequest, WATCH, b"\n\0" * 600 + b"\x12\0" * 401, "batch_ids", 1000),
        (pb.WatchStatusRequest, WATCH, bytes(8 * MIB + 1), "request", 8 * MIB),
        (pb.CancelFileRequest, REQUEST, bytes(8 * MIB + 1), "request", 8 * MIB),
        (pb.CancelFileRequest, REQUEST, UNKNOWN * 40_000, "request", 64),
        (pb.CancelFileRequest, REQUEST, b"\x12\x80\x80\x40" + b"r" * MIB, "reason", 32 * 1024),
    ],
)
async def test_what_goes_past_a_limit_is_refused_with_the_limit(
    kind: type, limits: RequestLimits, raw: bytes, field: str, limit: int
) -> None:
    assert await refused(kind, limits, raw) == {"field": field, "limit": str(limit)}


@pytest.mark.parametrize(
    "raw",
    [b"\n", b"\n\x05a", b"\xff" * 11, b"\x0b\x0c", b"\x0e\0", FILE * 2000 + b"\n\x7f", b"\x09\0", b"\n\x02\xff\xff"],
    ids=["no length", "cut short", "no number", "a group", "no kind", "cut after a piece", "cut number", "no FileSpec"],
)
async def test_what_is_no_message_is_refused(raw: bytes) -> None:
    with pytest.raises(UnexpectedMessage):
        await Decoder(pb.InitiateBatchRequest, BATCH).decode(raw)


async def test_a_long_message_comes_out_as_it_was() -> None:
    files = [pb.FileSpec(filename=f"{i:0255}", size_bytes=i, sha256="ab" * 32) for i in range(10_000)]
    asked = pb.InitiateBatchRequest(files=files, request_id="r" * 128)
    # What is not known, and what is given again, is taken as protobuf takes it.
    raw = UNKNOWN + b"\x12\x01x" + asked.SerializeToString()
    assert await Decoder(pb.InitiateBatchRequest, BATCH).decode(raw) == pb.InitiateBatchRequest.FromString(raw)


async def test_a_watch_of_a_thousand_of_the_longest_ids_fits() -> None:
    asked = pb.WatchStatusRequest(file_ids=["\U0001f600" * 128] * 999, batch_ids=["b"], until_final=True)
    assert await Decoder(pb.WatchStatusRequest, WATCH).decode(asked.SerializeToString()) == asked


async def test_other_tasks_go_on_while_a_long_message_is_decoded() -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    await Decoder(pb.InitiateBatchRequest, BATCH).decode(FILE * 10_000)
    counting.cancel()
    # No more than 512 files in one turn.
    assert turns >= 10_000 // 512
