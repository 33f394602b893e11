"""UploadFile over gRPC: bytes in, resumed, refused, and stopped by a cancel."""

from __future__ import annotations

import asyncio
import hashlib
import os
from typing import TYPE_CHECKING, TypeAlias

import grpc
import pytest

from support.doors import refusal_of_rpc
from support.grpc_upload import CHUNK, UploadCall, stub_on, upload
from support.process import ServerProcess, StartServer, gone_from_disk
from upload.v1 import upload_pb2 as pb

if TYPE_CHECKING:
    from upload.v1.upload_pb2_grpc import UploadServiceAsyncStub as Stub

RawMethod: TypeAlias = "grpc.aio.StreamStreamMultiCallable[bytes, bytes]"

MIB = 1024 * 1024


async def initiate(stub: Stub, size: int, sha256: str = "") -> str:
    answer = await stub.InitiateUpload(pb.InitiateUploadRequest(filename="a.bin", size_bytes=size, sha256=sha256))
    return answer.file.file_id


async def get(stub: Stub, file_id: str) -> pb.File:
    return await stub.GetFile(pb.GetFileRequest(file_id=file_id))


async def test_a_file_is_completed_with_its_digest(stub: Stub) -> None:
    data = os.urandom(3 * MIB + 17)
    digest = hashlib.sha256(data).hexdigest()
    file_id = await initiate(stub, len(data), digest.upper())
    completed = await upload(stub, file_id, data)
    assert completed.status == pb.UPLOAD_STATUS_COMPLETED
    assert completed.sha256 == digest
    assert completed.bytes_received == len(data)
    assert completed.revision == 3
    assert completed.completed_at == completed.updated_at
    assert await get(stub, file_id) == completed


async def test_a_file_of_no_bytes_is_completed_by_its_commit(stub: Stub) -> None:
    completed = await upload(stub, await initiate(stub, 0), b"")
    assert completed.sha256 == hashlib.sha256(b"").hexdigest()


async def test_the_first_word_is_the_durable_offset(stub: Stub) -> None:
    async with UploadCall(stub, await initiate(stub, 10)) as call:
        assert (await call.hear_until("progress")).progress.bytes_received == 0


async def test_what_was_sent_becomes_durable_within_a_second_or_so(stub: Stub) -> None:
    file_id = await initiate(stub, 10)
    async with UploadCall(stub, file_id) as call:
        await call.send(b"12345")
        await call.hear_durable(5)
        assert (await get(stub, file_id)).bytes_received == 5


async def test_a_stream_that_ends_without_commit_leaves_the_file_resumable(stub: Stub) -> None:
    data = os.urandom(2 * MIB)
    file_id = await initiate(stub, len(data), hashlib.sha256(data).hexdigest())
    async with UploadCall(stub, file_id) as call:
        await call.send(data[:CHUNK])
        await call.half_close()
        while await call.hear() is not None:
            pass
        assert call.heard[-1].progress.bytes_received == CHUNK
    file = await get(stub, file_id)
    assert (file.status, file.bytes_received) == (pb.UPLOAD_STATUS_UPLOADING, CHUNK)
    completed = await upload(stub, file_id, data[CHUNK:], CHUNK)
    assert completed.sha256 == hashlib.sha256(data).hexdigest()


async def test_all_bytes_without_a_commit_complete_nothing(stub: Stub) -> None:
    file_id = await initiate(stub, 5)
    async with UploadCall(stub, file_id) as call:
        await call.send(b"12345")
        await call.half_close()
        while await call.hear() is not None:
            pass
    file = await get(stub, file_id)
    assert (file.status, file.bytes_received) == (pb.UPLOAD_STATUS_UPLOADING, 5)


@pytest.mark.parametrize("offset", [1, 4, 10**12])
async def test_another_offset_is_refused_and_changes_nothing(stub: Stub, offset: int) -> None:
    file_id = await initiate(stub, 10)
    before = await get(stub, file_id)
    async with UploadCall(stub, file_id, offset) as call:
        error = await call.refused()
    assert (error.code, error.reason) == ("FAILED_PRECONDITION", "OFFSET_MISMATCH")
    assert error.metadata["expected_offset"] == "0"
    assert await get(stub, file_id) == before


async def test_a_commit_before_all_bytes_is_refused_and_can_be_made_good(stub: Stub) -> None:
    file_id = await initiate(stub, 10)
    async with UploadCall(stub, file_id) as call:
        await call.send(b"12345")
        await call.commit()
        error = await call.refused()
    assert (error.code, error.reason) == ("FAILED_PRECONDITION", "UPLOAD_INCOMPLETE")
    assert (await get(stub, file_id)).bytes_received == 5
    assert (await upload(stub, file_id, b"67890", 5)).status == pb.UPLOAD_STATUS_COMPLETED


async def test_more_bytes_than_announced_are_dropped_whole(stub: Stub) -> None:
    file_id = await initiate(stub, 10)
    async with UploadCall(stub, file_id) as call:
        await call.send(b"12345")
        await call.send(b"678901")
        error = await call.refused()
    assert (error.code, error.reason) == ("OUT_OF_RANGE", "SIZE_EXCEEDED")
    file = await get(stub, file_id)
    assert (file.status, file.bytes_received) == (pb.UPLOAD_STATUS_UPLOADING, 5)


@pytest.mark.parametrize("where", ["initiate", "commit"])
async def test_another_checksum_fails_the_file_and_reclaims_its_bytes(
    stub: Stub, server: ServerProcess, where: str
) -> None:
    wrong = "0" * 64
    file_id = await initiate(stub, 5, wrong if where == "initiate" else "")
    async with UploadCall(stub, file_id) as call:
        await call.send(b"12345")
        await call.commit(wrong if where == "commit" else "")
        error = await call.refused()
    assert (error.code, error.reason) == ("INVALID_ARGUMENT", "CHECKSUM_MISMATCH")
    file = await get(stub, file_id)
    assert (file.status, file.failure_reason) == (pb.UPLOAD_STATUS_FAILED, "checksum_mismatch")
    assert file.sha256 == ""
    await gone_from_disk(server, file_id)


def header(file_id: str, offset: int = 0) -> pb.UploadFileRequest:
    return pb.UploadFileRequest(header=pb.UploadHeader(file_id=file_id, offset=offset))


async def test_messages_out_of_order_are_refused(stub: Stub) -> None:
    file_id = await initiate(stub, 10)
    data = pb.UploadFileRequest(data=b"x")
    commit = pb.UploadFileRequest(commit=pb.UploadCommit())
    for messages in (
        [data],
        [commit],
        [pb.UploadFileRequest()],
        [],
        [header(file_id), header(file_id)],
        [header(file_id), pb.UploadFileRequest()],
    ):
        async with UploadCall(stub) as call:
            for message in messages:
                await call.say(message)
            await call.half_close()
            error = await call.refused()
        assert (error.code, error.reason) == ("INVALID_ARGUMENT", "UNEXPECTED_MESSAGE"), messages


@pytest.mark.parametrize("garbage", [b"\xff\xff\xff", b"\x12\x05abc", b"\x0a\x01"])
@pytest.mark.parametrize("after_data", [False, True])
async def test_what_is_no_message_is_refused_and_is_no_end_of_the_stream(
    channel: grpc.aio.Channel, stub: Stub, garbage: bytes, after_data: bool
) -> None:
    file_id = await initiate(stub, 10)
    before = [header(file_id), pb.UploadFileRequest(data=b"x")] if after_data else []
    messages = [*(message.SerializeToString() for message in before), garbage]
    method: RawMethod = channel.stream_stream("/upload.v1.UploadService/UploadFile")
    call = method(iter(messages))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        _ = [response async for response in call]
    error = refusal_of_rpc(caught.value)
    assert (error.code, error.reason) == ("INVALID_ARGUMENT", "UNEXPECTED_MESSAGE")
    assert (await get(stub, file_id)).bytes_received == len(before[1:])


async def test_bad_fields_of_the_stream_are_named(stub: Stub) -> None:
    file_id = await initiate(stub, 10**7)
    commit = pb.UploadFileRequest(commit=pb.UploadCommit(sha256="zz"))
    for messages, field in (
        ([header("")], "header.file_id"),
        ([header("x" * 129)], "header.file_id"),
        ([header(file_id, -1)], "header.offset"),
        ([header(file_id), pb.UploadFileRequest(data=b"x" * (MIB + 1))], "data"),
        ([header(file_id), commit], "commit.sha256"),
    ):
        async with UploadCall(stub) as call:
            for message in messages:
                await call.say(message)
            error = await call.refused()
        assert (error.reason, list(error.violations)) == ("INVALID_FIELD", [field])


async def test_an_unknown_file_is_not_found(stub: Stub) -> None:
    async with UploadCall(stub, "nothing") as call:
        assert (await call.refused()).reason == "FILE_NOT_FOUND"


async def test_a_final_file_takes_no_stream(stub: Stub) -> None:
    file_id = await initiate(stub, 10)
    await stub.CancelFile(pb.CancelFileRequest(file_id=file_id))
    async with UploadCall(stub, file_id) as call:
        error = await call.refused()
    assert (error.code, error.reason) == ("FAILED_PRECONDITION", "FILE_NOT_WRITABLE")
    assert (error.metadata["status"], error.metadata["cancelled_by"]) == ("cancelled", "user")


async def test_a_newer_stream_takes_the_file_over(stub: Stub) -> None:
    file_id = await initiate(stub, 10)
    async with UploadCall(stub, file_id) as old:
        await old.send(b"12345")
        await old.hear_durable(5)
        async with UploadCall(stub, file_id, 5) as new:
            await new.hear_until("progress")
            error = await old.refused()
            assert (error.code, error.reason) == ("ABORTED", "WRITER_REPLACED")
            await new.send(b"67890")
            await new.commit(hashlib.sha256(b"1234567890").hexdigest())
            assert (await new.hear_until("completed")).completed.status == pb.UPLOAD_STATUS_COMPLETED


async def test_a_cancel_stops_a_stream_at_full_speed(stub: Stub, server: ServerProcess) -> None:
    size = 1024 * MIB
    file_id = await initiate(stub, size)
    chunk = os.urandom(CHUNK)
    sent = 0
    async with UploadCall(stub, file_id) as call:

        async def send() -> None:
            nonlocal sent
            while sent < size:
                await call.send(chunk)
                sent += CHUNK

        sending = asyncio.create_task(send())
        await call.hear_durable(32 * MIB)
        answer = await stub.CancelFile(pb.CancelFileRequest(file_id=file_id, reason="enough"))
        sent_at_cancel = sent
        stopped = (await call.hear_until("stopped")).stopped
        assert sent - sent_at_cancel <= 64 * CHUNK
        sending.cancel()
        error = await call.refused()
    assert stopped.status == pb.UPLOAD_STATUS_CANCELLED
    assert (stopped.cancelled_by, stopped.cancel_reason) == ("user", "enough")
    assert stopped.cancelled_at == answer.cancelled_at
    assert (error.code, error.reason) == ("ABORTED", "UPLOAD_CANCELLED")
    assert (await get(stub, file_id)).status == pb.UPLOAD_STATUS_CANCELLED
    await gone_from_disk(server, file_id)


async def test_senders_that_heed_stopped_within_a_second_see_its_status(stub: Stub) -> None:
    """At full speed, and slow to heed: a server that did not read on would have some of them see INTERNAL."""

    async def cancelled_sender() -> grpc.StatusCode:
        file_id = await initiate(stub, 1024 * MIB)
        async with UploadCall(stub, file_id) as call:
            sending = asyncio.create_task(send_for_ever(call))
            await call.hear_durable(8 * MIB)
            await stub.CancelFile(pb.CancelFileRequest(file_id=file_id))
            await call.hear_until("stopped")
            await asyncio.sleep(0.4)
            sending.cancel()
            return await call.call.code()

    codes = await asyncio.gather(*(cancelled_sender() for _ in range(8)))
    assert codes == [grpc.StatusCode.ABORTED] * 8


async def send_for_ever(call: UploadCall) -> None:
    chunk = bytes(CHUNK)
    while True:
        await call.send(chunk)


async def test_a_batch_cancel_stops_the_streams_of_its_files(stub: Stub, server: ServerProcess) -> None:
    specs = [pb.FileSpec(filename=f"{i}", size_bytes=10) for i in range(3)]
    made = await stub.InitiateBatch(pb.InitiateBatchRequest(files=specs))
    completed = await upload(stub, made.file_ids[0], b"0123456789")
    async with UploadCall(stub, made.file_ids[1]) as call:
        await call.send(b"12345")
        await call.hear_durable(5)
        batch = await stub.GetBatch(pb.GetBatchRequest(batch_id=made.batch.batch_id))
        assert batch.status == pb.BATCH_STATUS_PROCESSING
        answer = await stub.CancelBatch(pb.CancelBatchRequest(batch_id=made.batch.batch_id, reason="all of it"))
        stopped = (await call.hear_until("stopped")).stopped
        assert (stopped.cancelled_by, stopped.cancel_reason) == ("batch_cancel", "all of it")
        assert stopped.cancelled_at == answer.cancelled_at
        assert (await call.refused()).reason == "UPLOAD_CANCELLED"
    assert answer.cancelled_files_count == 2
    assert await get(stub, completed.file_id) == completed
    await gone_from_disk(server, made.file_ids[1])
    assert list((server.data_dir / "bytes").rglob(f"*{completed.file_id}*"))


async def test_an_idle_stream_is_ended_and_can_be_resumed(start_server: StartServer) -> None:
    server = start_server("--idle-timeout", "1s")
    async with grpc.aio.insecure_channel(server.target) as channel:
        stub = stub_on(channel)
        file_id = await initiate(stub, 10)
        async with UploadCall(stub, file_id) as call:
            await call.send(b"123")
            error = await call.refused()
        assert (error.code, error.reason) == ("UNAVAILABLE", "UPLOAD_IDLE")
        assert (await get(stub, file_id)).bytes_received == 3
        assert (await upload(stub, file_id, b"4567890", 3)).status == pb.UPLOAD_STATUS_COMPLETED


async def test_a_client_that_is_gone_never_completes_a_file(stub: Stub, server: ServerProcess) -> None:
    """A broken client looks like a clean end of stream; killed after every k-th chunk."""
    ids = []
    for kth in range(8):
        file_id = await initiate(stub, 8)
        ids.append(file_id)
        async with grpc.aio.insecure_channel(server.target, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            call = UploadCall(stub_on(channel), file_id)
            async with call:
                for _ in range(kth + 1):
                    await call.send(b"x")
                await call.hear_until("progress")
    for file_id in ids:
        file = await get(stub, file_id)
        assert file.status in {pb.UPLOAD_STATUS_UPLOADING, pb.UPLOAD_STATUS_PENDING}


async def test_finish_and_cancel_race_and_exactly_one_wins(stub: Stub) -> None:
    outcomes = {"completed": 0, "cancelled": 0}
    pause = 0.001
    for round_ in range(150):
        file_id = await initiate(stub, 4)
        async with UploadCall(stub, file_id) as call:
            await call.send(b"1234")
            await call.hear_until("progress")
            cancel = pb.CancelFileRequest(file_id=file_id)
            await call.commit()
            if round_ % 3:
                await asyncio.sleep(pause)
            try:
                await stub.CancelFile(cancel)
                won = "cancelled"
            except grpc.aio.AioRpcError as error:
                refusal = refusal_of_rpc(error)
                assert (refusal.reason, refusal.metadata["status"]) == ("FILE_NOT_CANCELLABLE", "completed")
                won = "completed"
            # How long a commit takes is the disk's affair: the cancel comes earlier, or later, the next time.
            if round_ % 3:
                pause *= 0.7 if won == "completed" else 1.4
            last_message = "stopped" if won == "cancelled" else "completed"
            await call.hear_until(last_message)
        outcomes[won] += 1
        assert (await get(stub, file_id)).status == pb.UploadStatus.Value(f"UPLOAD_STATUS_{won.upper()}")
    assert min(outcomes.values()) > 0, outcomes
