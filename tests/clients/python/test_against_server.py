"""Both clients against the real service: upload, resume, cancel, watch, and connections cut in between."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest

from clients.python.conftest import Calls, SourceFile, calls
from support.process import ServerProcess, StartServer, gone_from_disk
from support.proxy import FaultProxy, fault_proxy
from upload import AsyncClient, Client, FileSpec, TransferProgress, errors

MIB = 1024 * 1024


async def test_a_file_arrives_whole(real: Calls, source: SourceFile) -> None:
    file = await real("upload", source.path)
    assert (file.status, file.sha256, file.filename) == ("completed", source.sha256, "report.pdf")
    assert await real("get", file.file_id) == file


@pytest.mark.parametrize("size", [0, 1, 256 * 1024, MIB + 1])
async def test_bytes_arrive_whole(real: Calls, size: int) -> None:
    content = os.urandom(size)
    file = await real("upload", content, filename="a/b.bin", sha256=hashlib.sha256(content).hexdigest())
    assert (file.size_bytes, file.bytes_received) == (size, size)


async def test_a_small_file_is_put(real: Calls) -> None:
    file = await real("put", b"hello", filename="hello.txt")
    assert (file.status, file.content_type) == ("completed", "text/plain")
    assert file.sha256 == hashlib.sha256(b"hello").hexdigest()
    with pytest.raises(errors.InvalidField):
        await real("put", bytes(256 * 1024 + 1), filename="long")


async def test_a_batch_is_sent_and_tells_what_became_of_each(real: Calls, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for name in ("a", "sub/b"):
        (tmp_path / name).write_text(name)
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    done = await real("upload_batch", tmp_path)
    assert [(file.filename, file.status) for file in done.files] == [("a", "completed"), ("sub/b", "completed")]
    assert (done.batch.status, [skipped.path.name for skipped in done.skipped]) == ("completed", ["link"])

    def vanish(_: TransferProgress) -> None:
        (tmp_path / "a").unlink(missing_ok=True)

    files = {"first": bytes(MIB), "second": tmp_path / "a", "third": b"3"}
    partly = await real("upload_batch", files, jobs=1, on_progress=vanish)
    assert [file.filename for file in partly.files] == ["first", "third"]
    assert isinstance(partly.errors["second"], FileNotFoundError)
    with pytest.raises(errors.InvalidField, match="backslash"):
        await real("upload_batch", {"a\\b": b""})


async def test_an_announced_file_that_was_cancelled_since_says_by_whom(real: Calls) -> None:
    file = await real("initiate", "a.bin", 5)
    await real("cancel", file.file_id, reason="mine")
    with pytest.raises(errors.UploadCancelled) as caught:
        await real("upload", b"hello", resume_file_id=file.file_id, is_new=True)
    assert (caught.value.cancelled_by, caught.value.cancel_reason) == ("user", "mine")


def disturbed(content: bytes, disturb: Callable[[], object], at: int) -> Iterator[bytes]:
    """The content in pieces of 1 MiB; ``disturb`` is called before the piece at ``at`` MiB."""
    for number, start in enumerate(range(0, len(content), MIB)):
        if number == at:
            disturb()
        yield content[start : start + MIB]


async def test_a_cut_connection_costs_nothing(real: Calls, proxy: FaultProxy) -> None:
    content = os.urandom(24 * MIB)
    # The blocking client takes its content from a thread.
    cut = partial(asyncio.get_running_loop().call_soon_threadsafe, proxy.reset_all)
    file = await real("upload", disturbed(content, cut, at=12), filename="a", size_bytes=len(content))
    assert file.sha256 == hashlib.sha256(content).hexdigest()
    assert proxy.accepted >= 2


async def test_a_download_goes_on_over_a_cut_connection(real: Calls, proxy: FaultProxy) -> None:
    content = os.urandom(24 * MIB)
    file = await real("upload", content, filename="a")
    # Each connection breaks after so many bytes: several are needed.
    proxy.down.cut_after = 10 * MIB
    assert b"".join(await real("download", file.file_id)) == content
    assert proxy.accepted >= 3
    proxy.heal()
    assert b"".join(await real("download", file.file_id, offset=5, length=MIB)) == content[5 : MIB + 5]
    assert await real("download", file.file_id, offset=len(content)) == []


async def test_what_is_not_completed_cannot_be_downloaded(real: Calls) -> None:
    file = await real("initiate", "a.bin", 5)
    with pytest.raises(errors.FileNotCompleted, match="pending"):
        await real("download", file.file_id)


async def test_a_killed_server_is_waited_for(kind: str, start_server: StartServer) -> None:
    first = start_server()
    content = os.urandom(24 * MIB)
    async with fault_proxy(first.grpc_port) as proxy, calls(kind, proxy.target) as call:

        def kill_and_start() -> None:
            first.kill()
            proxy.backend = start_server().grpc_port

        seen: list[TransferProgress] = []
        items = disturbed(content, kill_and_start, at=20)
        file = await call("upload", items, filename="a", size_bytes=len(content), on_progress=seen.append)
    assert file.sha256 == hashlib.sha256(content).hexdigest()
    durable = [progress.bytes_received for progress in seen]
    assert durable == sorted(durable)


async def cancelled_while_blocked(
    upload: Calls, server: ServerProcess, content: Iterator[bytes] | AsyncIterator[bytes], blocked: threading.Event
) -> None:
    """Cancel an upload whose source blocks; its sender hears of it although nobody releases the source."""
    ids: list[str] = []
    arguments = {"filename": "a", "size_bytes": 2 * MIB, "on_progress": lambda progress: ids.append(progress.file_id)}
    uploading = asyncio.ensure_future(upload("upload", content, **arguments))
    await asyncio.to_thread(blocked.wait)
    async with AsyncClient(server.target) as other:
        await other.cancel(ids[0], reason="enough")
    with pytest.raises(errors.UploadCancelled, match="enough"):
        await asyncio.wait_for(uploading, 20)


async def test_a_sender_whose_iterator_blocks_hears_of_the_cancel(real: Calls, server: ServerProcess) -> None:
    blocked, released = threading.Event(), threading.Event()

    def source() -> Iterator[bytes]:
        yield bytes(MIB)
        blocked.set()
        released.wait()

    try:
        await cancelled_while_blocked(real, server, source(), blocked)
    finally:
        released.set()


async def test_a_sender_whose_async_iterator_blocks_hears_of_the_cancel(server: ServerProcess) -> None:
    blocked = threading.Event()

    async def source() -> AsyncIterator[bytes]:
        yield bytes(MIB)
        blocked.set()
        await asyncio.Event().wait()

    async with calls("asyncio", server.target) as call:
        await cancelled_while_blocked(call, server, source(), blocked)


async def test_a_cancel_half_way_stops_the_sender_and_takes_the_bytes(real: Calls, server: ServerProcess) -> None:
    seen: list[TransferProgress] = []

    def cancel() -> None:
        with Client(server.target) as other:
            other.cancel(seen[0].file_id, reason="wrong version")

    items = disturbed(bytes(64 * MIB), cancel, at=20)
    with pytest.raises(errors.UploadCancelled) as caught:
        await real("upload", items, filename="a", size_bytes=64 * MIB, on_progress=seen.append)
    error = caught.value
    assert (error.cancelled_by, error.cancel_reason) == ("user", "wrong version")
    assert error.cancelled_at is not None
    file = await real("get", error.file_id)
    assert file.status == "cancelled"
    await gone_from_disk(server, error.file_id)


async def test_a_watch_over_cut_connections_tells_all_once(
    real: Calls, proxy: FaultProxy, server: ServerProcess
) -> None:
    async with AsyncClient(server.target) as other:
        file = await other.initiate("a", 3)
        watching = asyncio.ensure_future(real("watch", [file.file_id], until_final=True))
        async for event in other.watch([file.file_id]):
            if event.bookmark:
                break
        for content in (b"a", b"ab"):
            proxy.reset_all()
            with pytest.raises(errors.SourceChanged):
                await other.upload(iter([content]), size_bytes=3, resume_file_id=file.file_id)
        proxy.reset_all()
        await other.cancel(file.file_id)
        events = await asyncio.wait_for(watching, 20)
    files = [event.file for event in events if event.file]
    revisions = [file.revision for file in files]
    assert revisions == sorted(set(revisions))
    assert files[-1].status == "cancelled"


async def test_cancelling_twice_is_done_both_times(real: Calls) -> None:
    file = await real("initiate", "a", 3)
    first = await real("cancel", file.file_id, reason="enough", request_id="r-" + file.file_id)
    again = await real("cancel", file.file_id, reason="enough", request_id="r-" + file.file_id)
    other = await real("cancel", file.file_id)
    assert first == again
    assert (other.already, other.cancelled_by, other.cancel_reason) == (True, "user", "enough")
    assert other.cancelled_at == first.cancelled_at


async def test_a_batch_is_cancelled_with_its_files(real: Calls) -> None:
    specs = [FileSpec(filename=f"{number}.txt", size_bytes=3) for number in range(3)]
    answer = await real("initiate_batch", specs)
    await real("upload", b"abc", resume_file_id=answer.file_ids[0])
    outcome = await real("cancel_batch", answer.batch.batch_id, reason="enough")
    assert (outcome.cancelled_files_count, outcome.total_files_in_batch) == (2, 3)
    again = await real("cancel_batch", answer.batch.batch_id)
    assert (again.already, again.cancelled_by, again.cancel_reason) == (True, "user", "enough")
    files = await real("list_files", batch_id=answer.batch.batch_id, page_size=2)
    assert [file.file_id for file in files] == list(answer.file_ids)
    assert len(await real("list_files", batch_id=answer.batch.batch_id, status="cancelled")) == 2
    with pytest.raises(errors.UploadCancelled) as caught:
        await real("upload", b"abc", resume_file_id=answer.file_ids[1])
    assert caught.value.cancelled_by == "batch_cancel"


async def test_the_newest_are_listed_first_and_everything_is_counted(real: Calls) -> None:
    made = [await real("initiate_batch", [FileSpec(filename="a", size_bytes=3)] * 2) for _ in range(2)]
    batch_ids = [answer.batch.batch_id for answer in made]
    await real("cancel_batch", batch_ids[1])

    found = await real("list_files", statuses=["cancelled", "pending"], order_by="created_at desc", page_size=3)
    assert [file.file_id for file in found[:4]] == [*reversed(made[1].file_ids), *reversed(made[0].file_ids)]
    batches = await real("list_batches", statuses=["pending", "cancelled"], order_by="created_at desc", page_size=1)
    assert [batch.batch_id for batch in batches[:2]] == batch_ids[::-1]
    assert batch_ids[0] not in {batch.batch_id for batch in await real("list_batches", status=batches[0].status)}
    filters = {"created_after": batches[1].created_at, "cancelled_by": "batch_cancel"}
    found = await real("list_files", filename_prefix="a", **filters)
    assert [file.file_id for file in found[-2:]] == list(made[1].file_ids)
    assert not {file.file_id for file in found} & {*made[0].file_ids}
    newest, *_ = await real("audit", order_by="event_id desc", source="grpc", to_status="cancelled")
    assert newest.batch_id == batch_ids[1]
    alone = await real("initiate", "a", 3)
    (newest, *_) = await real("list_files", without_batch=True, order_by="created_at desc", page_size=1)
    assert newest.file_id == alone.file_id
    counted = await real("statistics", window=timedelta(hours=1), step=timedelta(minutes=1))
    assert len(counted.buckets) == 60
    assert sum(bucket.cancelled for bucket in counted.buckets) == counted.files[4].files >= 2
    with pytest.raises(ValueError, match="no status of a batch"):
        await real("list_batches", status="uploading")


async def test_what_is_completed_or_unknown_cannot_be_cancelled(real: Calls) -> None:
    file = await real("upload", b"abc", filename="a")
    with pytest.raises(errors.FileNotCancellable, match="completed") as caught:
        await real("cancel", file.file_id)
    assert (caught.value.status, caught.value.file_id) == ("completed", file.file_id)
    with pytest.raises(errors.FileNotFound):
        await real("cancel", "nobody")
    with pytest.raises(errors.BatchNotFound):
        await real("cancel_batch", "nobody")
    with pytest.raises(errors.FileNotFound):
        await real("watch", ["nobody"])
    with pytest.raises(errors.InvalidField, match="filename"):
        await real("initiate", "../a", 3)


async def test_a_wrong_checksum_fails_the_file(real: Calls) -> None:
    with pytest.raises(errors.ChecksumMismatch) as caught:
        await real("upload", b"abc", filename="a", sha256="0" * 64)
    assert (await real("get", caught.value.file_id)).status == "failed"


async def test_a_newer_sender_takes_over_and_the_older_gives_in(real: Calls, server: ServerProcess) -> None:
    seen: list[TransferProgress] = []
    content = bytes(64 * MIB)

    def take_over() -> None:
        with Client(server.target) as other:
            other.upload(content, resume_file_id=seen[0].file_id)

    items = disturbed(content, take_over, at=20)
    with pytest.raises(errors.WriterReplaced):
        await real("upload", items, filename="a", size_bytes=len(content), on_progress=seen.append)
    # The older sender gives in at once; the newer one sends in the older one's source, and goes on.
    await real("watch", [seen[0].file_id], until_final=True)
    assert (await real("get", seen[0].file_id)).status == "completed"


async def test_of_two_senders_at_full_speed_the_older_gives_in(real: Calls, server: ServerProcess) -> None:
    size = 100 * 1024**3
    sending = asyncio.Event()
    loop = asyncio.get_running_loop()

    def progressed(progress: TransferProgress) -> None:
        if progress.bytes_received:
            loop.call_soon_threadsafe(sending.set)

    def zeros() -> Iterator[bytes]:
        return itertools.repeat(bytes(MIB))

    file = await real("initiate", "a", size)
    older = asyncio.ensure_future(
        real("upload", zeros(), size_bytes=size, resume_file_id=file.file_id, on_progress=progressed, checksum=False)
    )
    await asyncio.wait_for(sending.wait(), 20)
    async with AsyncClient(server.target) as other:
        newer = asyncio.ensure_future(
            other.upload(zeros(), size_bytes=size, resume_file_id=file.file_id, checksum=False)
        )
        await asyncio.wait({older, newer}, return_when=asyncio.FIRST_COMPLETED, timeout=30)
        await other.cancel(file.file_id)
        with pytest.raises(errors.WriterReplaced):
            await older
        with pytest.raises(errors.UploadCancelled):
            await newer


async def test_the_audit_trail_tells_who_did_what(real: Calls) -> None:
    file = await real("initiate", "a", 3)
    await real("cancel", file.file_id, reason="enough")
    events = await real("audit", file_id=file.file_id, page_size=1)
    assert [(event.from_status, event.to_status) for event in events] == [("", "pending"), ("pending", "cancelled")]
    assert events[1].reason == "enough"


async def test_a_cancel_has_a_connection_of_its_own(real: Calls, proxy: FaultProxy) -> None:
    file = await real("initiate", "a", 3)
    before = proxy.accepted
    await real("get", file.file_id)
    assert proxy.accepted == before
    await real("cancel", file.file_id)
    assert proxy.accepted == before + 1


async def test_an_abandoned_upload_can_be_resumed(server: ServerProcess) -> None:
    content = os.urandom(24 * MIB)
    begun = asyncio.Event()

    def progressed(progress: TransferProgress) -> None:
        if progress.bytes_received:
            begun.set()

    async def endless() -> AsyncIterator[bytes]:
        yield content[: 16 * MIB]
        await asyncio.Event().wait()

    async with AsyncClient(server.target) as client:
        file = await client.initiate("a", len(content))
        task = asyncio.create_task(
            client.upload(endless(), size_bytes=len(content), resume_file_id=file.file_id, on_progress=progressed)
        )
        await asyncio.wait_for(begun.wait(), 20)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert (await client.get(file.file_id)).status == "uploading"
        file = await client.upload(content, resume_file_id=file.file_id)
    assert file.sha256 == hashlib.sha256(content).hexdigest()
