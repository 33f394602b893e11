"""Uploads over connections that break, by both clients."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from grpc import StatusCode

from clients.python.conftest import Calls, SourceFile
from clients.python.scripted import BROKEN, INTERNAL, UNKNOWN_OUTCOME, Refusal, Running, StreamFault
from upload import AsyncClient, TransferProgress, errors
from upload.v1 import upload_pb2 as pb

MIB = 1024 * 1024


async def test_a_file_arrives_with_name_type_and_checksum(call: Calls, scripted: Running, source: SourceFile) -> None:
    seen: list[TransferProgress] = []
    file = await call("upload", source.path, on_progress=seen.append)
    assert file.status == "completed"
    assert bytes(scripted.service.data[file.file_id]) == source.content
    announced = scripted.service.calls["InitiateUpload"][0]
    assert (announced.filename, announced.content_type) == ("report.pdf", "application/pdf")
    assert scripted.service.calls["commit"][0].sha256 == source.sha256
    received = [progress.bytes_received for progress in seen]
    assert received == sorted(received)
    assert received[-1] == len(source.content) == seen[-1].size_bytes


@pytest.mark.parametrize("content", [b"", b"x", b"x" * MIB, bytes(MIB + 1), bytearray(5), memoryview(b"abc")])
async def test_bytes_of_any_size_arrive(
    call: Calls, scripted: Running, content: bytes | bytearray | memoryview
) -> None:
    file = await call("upload", content, filename="a.bin")
    assert bytes(scripted.service.data[file.file_id]) == bytes(content)


def pieces(*sizes: int) -> Iterator[bytes]:
    for number, size in enumerate(sizes):
        yield bytes([number]) * size


async def test_an_iterator_arrives_in_chunks(call: Calls, scripted: Running) -> None:
    file = await call("upload", pieces(3, 0, 2 * MIB, 1), filename="a", size_bytes=2 * MIB + 4)
    assert bytes(scripted.service.data[file.file_id]) == b"".join(pieces(3, 0, 2 * MIB, 1))


async def test_an_async_iterator_arrives(scripted: Running) -> None:
    async def items() -> AsyncIterator[bytes]:
        for piece in pieces(10, 20):
            await asyncio.sleep(0)
            yield piece

    async with AsyncClient(scripted.target) as client:
        file = await client.upload(items(), filename="a", size_bytes=30)
    assert bytes(scripted.service.data[file.file_id]) == b"".join(pieces(10, 20))


@pytest.mark.parametrize("refusal", [BROKEN, INTERNAL])
async def test_a_broken_stream_is_resumed_where_its_durable_bytes_end(
    call: Calls, scripted: Running, source: SourceFile, refusal: Refusal
) -> None:
    scripted.service.stream_faults = [
        StreamFault(MIB, refusal, durable=300_000),
        StreamFault(2 * MIB, refusal, durable=300_000),
    ]
    file = await call("upload", source.path)
    assert [header.offset for header in scripted.service.calls["UploadFile"]] == [0, 300_000, 300_000]
    assert bytes(scripted.service.data[file.file_id]) == source.content
    assert scripted.service.calls["commit"][0].sha256 == source.sha256


async def test_an_iterator_gives_the_lost_bytes_once_more(call: Calls, scripted: Running) -> None:
    content = os.urandom(3 * MIB + 7)
    items = (content[start : start + 70_001] for start in range(0, len(content), 70_001))
    scripted.service.stream_faults = [StreamFault(MIB, BROKEN, durable=500_000)]
    file = await call("upload", items, filename="a", size_bytes=len(content))
    assert bytes(scripted.service.data[file.file_id]) == content
    assert scripted.service.calls["commit"][0].sha256 == hashlib.sha256(content).hexdigest()


async def test_the_answer_to_a_commit_that_was_lost_is_found_out(call: Calls, scripted: Running) -> None:
    scripted.service.stream_faults = [StreamFault(0, BROKEN, after_commit=True)]
    file = await call("upload", b"abc", filename="a")
    assert file.status == "completed"
    assert len(scripted.service.calls["UploadFile"]) == 1


async def test_internal_hides_a_cancel_and_the_truth_is_asked_for(call: Calls, scripted: Running) -> None:
    scripted.service.add("f-9", 3 * MIB)
    scripted.service.stream_faults = [StreamFault(MIB, INTERNAL)]

    def cancelled_meanwhile(found: pb.File) -> None:
        if found.status == pb.UPLOAD_STATUS_UPLOADING:
            scripted.service.mark_cancelled(found, "too big", by="user:ann")

    scripted.service.on_get = cancelled_meanwhile
    with pytest.raises(errors.UploadCancelled) as caught:
        await call("upload", bytes(3 * MIB), resume_file_id="f-9")
    assert (caught.value.cancelled_by, caught.value.cancel_reason) == ("user:ann", "too big")


async def test_stopped_ends_the_upload_with_who_when_and_why(call: Calls, scripted: Running) -> None:
    scripted.service.cancel_now.set()
    with pytest.raises(errors.UploadCancelled) as caught:
        await call("upload", bytes(100 * MIB), filename="a")
    error = caught.value
    assert (error.cancelled_by, error.cancel_reason, error.file_id) == ("user:ann", "wrong one", "f-1")
    assert error.cancelled_at is not None
    assert error.cancelled_at.year == 2024
    assert str(error).startswith("The upload was cancelled by user:ann (wrong one);")
    # It heeded `stopped`: what was under way came, nothing near the whole.
    assert scripted.service.late_bytes < 50 * MIB


async def test_a_sender_that_was_replaced_does_not_fight_back(call: Calls, scripted: Running) -> None:
    replaced = Refusal(StatusCode.ABORTED, "WRITER_REPLACED", "A newer stream took this file over")
    scripted.service.stream_faults = [StreamFault(0, replaced)]
    scripted.service.add("f-9", 3, status=pb.UPLOAD_STATUS_UPLOADING)
    with pytest.raises(errors.WriterReplaced):
        await call("upload", b"abc", resume_file_id="f-9")
    assert len(scripted.service.calls["UploadFile"]) == 1


async def test_a_lost_status_of_a_file_that_grows_means_a_newer_sender(call: Calls, scripted: Running) -> None:
    scripted.service.add("f-9", 3 * MIB)
    scripted.service.stream_faults = [StreamFault(MIB, INTERNAL)]

    def grows(found: pb.File) -> None:
        if scripted.service.calls["UploadFile"]:
            found.bytes_received += 1

    scripted.service.on_get = grows
    with pytest.raises(errors.WriterReplaced, match="Another sender took this file over"):
        await call("upload", bytes(3 * MIB), resume_file_id="f-9")
    assert len(scripted.service.calls["UploadFile"]) == 1


async def test_a_file_that_someone_else_completed_is_not_ours(call: Calls, scripted: Running) -> None:
    # More than a sender gets ahead of a server that takes its time: one that has sent its commit may have completed it.
    scripted.service.add("f-9", 32 * MIB)
    scripted.service.stream_faults = [StreamFault(MIB, BROKEN)]

    def completes(found: pb.File) -> None:
        if scripted.service.calls["UploadFile"]:
            found.status = pb.UPLOAD_STATUS_COMPLETED

    scripted.service.on_get = completes
    with pytest.raises(errors.WriterReplaced, match="Another sender completed this file"):
        await call("upload", bytes(32 * MIB), resume_file_id="f-9")


async def test_an_offset_that_is_always_wrong_is_given_up(scripted: Running) -> None:
    scripted.service.add("f-9", 3 * MIB, status=pb.UPLOAD_STATUS_UPLOADING)
    mismatch = Refusal(StatusCode.FAILED_PRECONDITION, "OFFSET_MISMATCH", "The offset is wrong")
    scripted.service.stream_faults = [StreamFault(0, mismatch)] * 99

    def grows(found: pb.File) -> None:
        found.bytes_received += 1

    scripted.service.on_get = grows
    async with AsyncClient(scripted.target, resume_tries=2) as client:
        with pytest.raises(errors.OffsetMismatch):
            await client.upload(bytes(3 * MIB), resume_file_id="f-9")
    assert len(scripted.service.calls["UploadFile"]) == 3


async def test_it_gives_up_in_the_end_and_says_what_can_be_resumed(scripted: Running) -> None:
    scripted.service.stream_faults = [StreamFault(1, BROKEN, durable=0)] * 99
    async with AsyncClient(scripted.target, resume_tries=3) as client:
        # What grpc.aio makes of it may be INTERNAL (see retry.status_lost).
        with pytest.raises(errors.UploadServiceError) as caught:
            await client.upload(bytes(MIB), filename="a")
    assert caught.value.file_id == "f-1"
    assert len(scripted.service.calls["UploadFile"]) == 4


async def test_progress_renews_the_patience(scripted: Running) -> None:
    scripted.service.stream_faults = [StreamFault(n * 256 * 1024, BROKEN) for n in range(1, 8)]
    async with AsyncClient(scripted.target, resume_tries=2) as client:
        file = await client.upload(bytes(2 * MIB), filename="a")
    assert file.status == "completed"
    assert len(scripted.service.calls["UploadFile"]) == 8


async def test_resuming_hashes_what_the_server_has(call: Calls, scripted: Running, source: SourceFile) -> None:
    content = source.content
    scripted.service.add("f-5", len(content), bytes_received=1_000_001, status=pb.UPLOAD_STATUS_UPLOADING)
    scripted.service.data["f-5"] += content[:1_000_001]
    await call("upload", source.path, resume_file_id="f-5")
    assert bytes(scripted.service.data["f-5"]) == content
    assert scripted.service.calls["commit"][0].sha256 == hashlib.sha256(content).hexdigest()
    assert not scripted.service.calls["InitiateUpload"]


async def test_resuming_with_an_iterator_skips_too(call: Calls, scripted: Running) -> None:
    scripted.service.add("f-5", 30, bytes_received=15, status=pb.UPLOAD_STATUS_UPLOADING)
    scripted.service.data["f-5"] += b"".join(pieces(10, 10, 10))[:15]
    await call("upload", pieces(10, 10, 10), size_bytes=30, resume_file_id="f-5")
    assert bytes(scripted.service.data["f-5"]) == b"".join(pieces(10, 10, 10))


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (pb.UPLOAD_STATUS_COMPLETED, errors.FileNotWritable),
        (pb.UPLOAD_STATUS_CANCELLED, errors.UploadCancelled),
        (pb.UPLOAD_STATUS_FAILED, errors.UploadFailed),
    ],
)
async def test_a_final_file_is_not_resumed(
    call: Calls, scripted: Running, status: pb.UploadStatus, kind: type[Exception]
) -> None:
    scripted.service.add("f-5", 3, status=status)
    with pytest.raises(kind):
        await call("upload", b"abc", resume_file_id="f-5")
    assert not scripted.service.calls["UploadFile"]


async def test_a_source_of_another_size_is_not_resumed(call: Calls, scripted: Running) -> None:
    scripted.service.add("f-5", 4)
    with pytest.raises(errors.SourceChanged, match="has 3 bytes, but 4 were announced"):
        await call("upload", b"abc", resume_file_id="f-5")


@pytest.mark.parametrize("change", ["touched", "grown", "cut"])
async def test_a_file_that_changes_while_it_is_sent_is_never_committed(
    call: Calls, scripted: Running, tmp_path: Path, change: str
) -> None:
    # Far more than a connection holds: the first progress is heard long before all of it is read.
    path = tmp_path / "big.bin"
    path.touch()
    os.truncate(path, 512 * MIB)

    def disturb(progress: TransferProgress) -> None:
        if progress.bytes_received == 0:
            return
        match change:
            case "touched":
                os.utime(path, ns=(1, 1))
            case "grown":
                with path.open("ab") as file:
                    file.write(b"more")
            case "cut":
                os.truncate(path, MIB)

    with pytest.raises(errors.SourceChanged) as caught:
        await call("upload", path, on_progress=disturb)
    assert caught.value.file_id == "f-1"
    assert not scripted.service.calls["commit"]
    assert scripted.service.files["f-1"].status == pb.UPLOAD_STATUS_UPLOADING


@pytest.mark.parametrize(("given", "announced"), [((10, 10), 21), ((10, 10), 19), ((), 1), ((1,), 0)])
async def test_an_iterator_of_another_size_is_never_committed(
    call: Calls, scripted: Running, given: tuple[int, ...], announced: int
) -> None:
    with pytest.raises(errors.SourceChanged):
        await call("upload", pieces(*given), filename="a", size_bytes=announced)
    assert not scripted.service.calls["commit"]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc, whose files say that they are empty")
async def test_a_file_that_has_more_than_it_says_is_never_committed(call: Calls, scripted: Running) -> None:
    with pytest.raises(errors.SourceChanged, match="has more than 0 bytes"):
        await call("upload", Path("/proc/self/status"))
    assert not scripted.service.calls["commit"]


async def test_what_an_iterator_raises_reaches_the_caller(call: Calls, scripted: Running) -> None:
    def items() -> Iterator[bytes]:
        yield b"abc"
        raise ZeroDivisionError("in the source")

    with pytest.raises(ZeroDivisionError, match="in the source"):
        await call("upload", items(), filename="a", size_bytes=6)
    assert not scripted.service.calls["commit"]


async def test_a_missing_file_is_told_before_anything_is_announced(
    call: Calls, scripted: Running, tmp_path: Path
) -> None:
    with pytest.raises(FileNotFoundError):
        await call("upload", tmp_path / "none")
    assert not scripted.service.calls["InitiateUpload"]


async def test_what_cannot_be_uploaded_is_refused(call: Calls) -> None:
    with pytest.raises(TypeError, match="size_bytes"):
        await call("upload", iter([b"a"]), filename="a")
    with pytest.raises(TypeError, match="filename"):
        await call("upload", b"a")
    with pytest.raises(TypeError, match="int"):
        await call("upload", 5, filename="a")


# Whole files ---------------------------------------------------------------------------------------------------------


async def test_a_small_file_is_put_in_one_call_and_once(call: Calls, scripted: Running) -> None:
    scripted.service.lost["PutFile"].append(UNKNOWN_OUTCOME)
    file = await call("put", b"hello", filename="re\u0301sume\u0301.txt", content_type="text/x")
    assert file.status == "completed"
    first, second = scripted.service.calls["PutFile"]
    assert first == second
    assert (first.filename, first.content_type, first.data) == ("r\u00e9sum\u00e9.txt", "text/x", b"hello")
    assert first.sha256 == hashlib.sha256(b"hello").hexdigest()
    assert len(scripted.service.files) == 1


async def test_an_announced_file_is_sent_without_asking_how_it_stands(call: Calls, scripted: Running) -> None:
    file = scripted.service.add("f-1", 5)
    assert (await call("upload", b"hello", resume_file_id=file.file_id, is_new=True)).status == "completed"
    assert scripted.service.calls["GetFile"] == []
