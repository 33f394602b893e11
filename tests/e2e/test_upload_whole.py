"""A small file whose header, bytes and commit come together on its stream: one write, and the answers of any stream."""

from __future__ import annotations

import asyncio
import hashlib
import os
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING

import grpc
import pytest

from support.doors import refusal_of_rpc
from support.process import ServerProcess, gone_from_disk
from upload.v1 import upload_pb2 as pb

if TYPE_CHECKING:
    from upload.v1.upload_pb2_grpc import UploadServiceAsyncStub as Stub

KIB = 1024


async def initiate(stub: Stub, size: int, sha256: str = "") -> str:
    answer = await stub.InitiateUpload(pb.InitiateUploadRequest(filename="a.bin", size_bytes=size, sha256=sha256))
    return answer.file.file_id


async def send(stub: Stub, file_id: str, pieces: Sequence[bytes], sha256: str = "") -> list[pb.UploadFileResponse]:
    """Send all there is without listening; returns what the server said."""
    messages = [pb.UploadFileRequest(header=pb.UploadHeader(file_id=file_id))]
    messages += [pb.UploadFileRequest(data=piece) for piece in pieces]
    messages.append(pb.UploadFileRequest(commit=pb.UploadCommit(sha256=sha256)))
    return [response async for response in stub.UploadFile(iter(messages))]


async def moves(stub: Stub, file_id: str = "", batch_id: str = "") -> list[str]:
    request = pb.ListAuditEventsRequest(file_id=file_id, batch_id=batch_id, page_size=1000)
    page = await stub.ListAuditEvents(request)
    return [event.to_status for event in page.events if bool(event.file_id) == bool(file_id)]


@pytest.mark.parametrize("pieces", [[4], [1, 2, 3], [256 * KIB], [0]])
async def test_it_is_completed_by_one_write(stub: Stub, server: ServerProcess, pieces: list[int]) -> None:
    data = [os.urandom(size) for size in pieces]
    digest = hashlib.sha256(b"".join(data)).hexdigest()
    at_once = False
    # On a busy machine messages of one moment may come one by one: then it takes a stream, which says so.
    for _ in range(20):
        file_id = await initiate(stub, sum(pieces), digest)

        *others, last = await send(stub, file_id, data, digest.upper())

        file = last.completed
        assert (file.status, file.revision, file.sha256) == (pb.UPLOAD_STATUS_COMPLETED, 3, digest)
        assert file.bytes_received == sum(pieces)
        assert await stub.GetFile(pb.GetFileRequest(file_id=file_id)) == file
        assert await moves(stub, file_id) == ["pending", "uploading", "completed"]
        assert (server.data_dir / "bytes" / file_id[:2] / file_id).read_bytes() == b"".join(data)
        if at_once := not others:
            break
    assert at_once


@pytest.mark.parametrize("count", [1, 12])
async def test_a_batch_of_such_files_is_processing_and_then_completed(stub: Stub, count: int) -> None:
    files = [pb.FileSpec(filename=f"{i}", size_bytes=3) for i in range(count)]
    made = await stub.InitiateBatch(pb.InitiateBatchRequest(files=files))

    await asyncio.gather(*(send(stub, file_id, [b"abc"]) for file_id in made.file_ids))

    batch = await stub.GetBatch(pb.GetBatchRequest(batch_id=made.batch.batch_id))
    assert (batch.status, batch.completed_files) == (pb.BATCH_STATUS_COMPLETED, count)
    assert await moves(stub, batch_id=batch.batch_id) == ["pending", "processing", "completed"]


@pytest.mark.parametrize("at", ["initiate", "commit"])
async def test_a_wrong_digest_fails_the_file(stub: Stub, server: ServerProcess, at: str) -> None:
    wrong = "00" * 32
    file_id = await initiate(stub, 3, wrong if at == "initiate" else "")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await send(stub, file_id, [b"abc"], wrong if at == "commit" else "")
    assert refusal_of_rpc(caught.value).reason == "CHECKSUM_MISMATCH"
    assert await moves(stub, file_id) == ["pending", "uploading", "failed"]
    await gone_from_disk(server, file_id)


@pytest.mark.parametrize(("sent", "reason"), [([b"ab"], "UPLOAD_INCOMPLETE"), ([b"ab", b"cd"], "SIZE_EXCEEDED")])
async def test_another_length_is_refused_as_of_any_stream(stub: Stub, sent: list[bytes], reason: str) -> None:
    file_id = await initiate(stub, 3)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await send(stub, file_id, sent)
    assert refusal_of_rpc(caught.value).reason == reason


async def test_a_file_that_cannot_be_sent_to_says_why(stub: Stub) -> None:
    cancelled, completed = await initiate(stub, 3), await initiate(stub, 3)
    await stub.CancelFile(pb.CancelFileRequest(file_id=cancelled))
    await send(stub, completed, [b"abc"])
    reasons = []
    for file_id in (cancelled, completed, str(uuid.uuid4()), "no id of ours"):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await send(stub, file_id, [b"abc"])
        reasons.append(refusal_of_rpc(caught.value).reason)
    assert reasons == ["FILE_NOT_WRITABLE", "FILE_NOT_WRITABLE", "FILE_NOT_FOUND", "FILE_NOT_FOUND"]


async def test_a_cancel_beside_it_wins_or_loses_and_is_never_lost(stub: Stub, server: ServerProcess) -> None:
    reasons: set[str] = set()

    async def ends(file_id: str, number: int) -> tuple[bool, bool]:
        async def cancel() -> bool:
            await asyncio.sleep(number / 5000)
            try:
                await stub.CancelFile(pb.CancelFileRequest(file_id=file_id))
            except grpc.aio.AioRpcError as error:
                reasons.add(refusal_of_rpc(error).reason)
                return False
            return True

        async def finish() -> bool:
            try:
                return any(answer.HasField("completed") for answer in await send(stub, file_id, [b"abc"]))
            except grpc.aio.AioRpcError as error:
                reasons.add(refusal_of_rpc(error).reason)
                return False

        return tuple(await asyncio.gather(finish(), cancel()))  # type: ignore[return-value]

    ids = [await initiate(stub, 3) for _ in range(60)]
    outcomes = await asyncio.gather(*(ends(file_id, number) for number, file_id in enumerate(ids)))
    assert reasons <= {"FILE_NOT_CANCELLABLE", "FILE_NOT_WRITABLE", "UPLOAD_CANCELLED"}
    for file_id, (finished, cancelled) in zip(ids, outcomes, strict=True):
        assert finished != cancelled
        file = await stub.GetFile(pb.GetFileRequest(file_id=file_id))
        wanted = pb.UPLOAD_STATUS_COMPLETED if finished else pb.UPLOAD_STATUS_CANCELLED
        assert file.status == wanted
        if cancelled:
            await gone_from_disk(server, file_id)


async def test_two_that_send_one_file_end_with_one_completed_file(stub: Stub) -> None:
    file_id = await initiate(stub, 3)
    ends = await asyncio.gather(*(send(stub, file_id, [b"abc"]) for _ in range(8)), return_exceptions=True)
    assert sum(not isinstance(end, BaseException) for end in ends) == 1
    assert await moves(stub, file_id) == ["pending", "uploading", "completed"]
