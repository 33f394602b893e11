"""What the contract promises a watcher, the same over gRPC, newline-delimited JSON and server-sent events."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

import grpc
import httpx
import pytest
import pytest_asyncio

from support.doors import GrpcDoor, Json, Refusal
from support.grpc_upload import UploadCall, stub_on, upload
from support.process import ServerProcess, StartServer
from support.watching import Watcher, WatchTransport, grpc_watch, ndjson_watch, sse_watch

if TYPE_CHECKING:
    from upload.v1.upload_pb2_grpc import UploadServiceAsyncStub as Stub


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server of its own: a watch of everything on the shared one tells of thousands of files of others."""
    with ServerProcess(tmp_path_factory.mktemp("watched")) as process:
        yield process


@pytest.fixture(params=["grpc", "ndjson", "sse"])
def transport(request: pytest.FixtureRequest, stub: Stub, http: httpx.AsyncClient) -> WatchTransport:
    """Each transport in turn."""
    if request.param == "grpc":
        return grpc_watch(stub)
    return ndjson_watch(http) if request.param == "ndjson" else sse_watch(http)


@pytest.fixture
def door(channel: grpc.aio.Channel) -> GrpcDoor:
    """What changes things here; the doors are compared elsewhere."""
    return GrpcDoor(channel)


@pytest_asyncio.fixture
async def watching(transport: WatchTransport) -> AsyncIterator[Any]:
    """Open watches that are closed after the test."""
    opened: list[Watcher] = []

    def start(**request: Any) -> Watcher:
        opened.append(Watcher(transport(**request)))
        return opened[-1]

    yield start
    for watcher in opened:
        await watcher.close()


async def initiate(door: GrpcDoor, size: int = 4) -> str:
    answer = await door.call("InitiateUpload", filename="a", size_bytes=size)
    file_id: str = answer["file"]["file_id"]
    return file_id


async def batch_of(door: GrpcDoor, count: int) -> Json:
    return await door.call("InitiateBatch", files=[{"filename": str(i), "size_bytes": 4} for i in range(count)])


async def test_a_fresh_watch_tells_the_state_then_a_bookmark_then_changes(door: GrpcDoor, watching: Any) -> None:
    file_id = await initiate(door)
    watcher = watching(file_ids=[file_id])
    (opening,) = await watcher.opening()
    assert opening["file"] == await door.call("GetFile", file_id=file_id)
    assert watcher.heard[-1]["bookmark"] == {"resynced": False}
    answer = await door.call("CancelFile", file_id=file_id, reason="why not")
    file = await watcher.until("CANCELLED")
    assert file["cancelled_at"] == answer["cancelled_at"]
    assert (file["cancelled_by"], file["cancel_reason"], file["revision"]) == ("user", "why not", "2")


async def test_a_watch_begun_after_an_answer_opens_with_it(door: GrpcDoor, watching: Any) -> None:
    made = await batch_of(door, 3)
    targets: Json = {"batch_ids": [made["batch"]["batch_id"]], "include_batch_files": True}
    for count, file_id in enumerate(made["file_ids"]):
        for cancels in (count, count + 1):
            opening = await watching(**targets).opening()
            files = [message["file"]["status"] for message in opening if "file" in message]
            assert (len(files), files.count("UPLOAD_STATUS_CANCELLED")) == (3, cancels)
            assert opening[-1]["batch"]["cancelled_files_count"] == cancels
            if cancels == count:
                await door.call("CancelFile", file_id=file_id)


async def test_a_whole_upload_is_seen(door: GrpcDoor, stub: Stub, watching: Any) -> None:
    file_id = await initiate(door)
    watcher = watching(file_ids=[file_id], until_final=True)
    await watcher.opening()
    await upload(stub, file_id, b"1234")
    await watcher.until("COMPLETED")
    assert await watcher.next() is None
    assert [m["file"]["revision"] for m in watcher.heard if "file" in m] in (["1", "2", "3"], ["1", "3"])


async def test_a_batch_comes_after_its_files(door: GrpcDoor, watching: Any) -> None:
    made = await batch_of(door, 5)
    watcher = watching(batch_ids=[made["batch"]["batch_id"]], include_batch_files=True, until_final=True)
    opening = await watcher.opening()
    assert [m.get("file", {}).get("file_id") for m in opening] == [*made["file_ids"], None]
    await door.call("CancelBatch", batch_id=made["batch"]["batch_id"], reason="all")
    heard = []
    while (message := await watcher.next()) is not None:
        heard.append(message)
    assert [m["file"]["cancelled_by"] for m in heard[:-1]] == ["batch_cancel"] * 5
    assert heard[-1]["batch"]["status"] == "BATCH_STATUS_CANCELLED"
    assert heard[-1]["batch"]["cancelled_files_count"] == 5


async def test_a_batch_alone_tells_of_no_file(door: GrpcDoor, watching: Any) -> None:
    made = await batch_of(door, 2)
    watcher = watching(batch_ids=[made["batch"]["batch_id"]])
    await watcher.opening()
    await door.call("CancelFile", file_id=made["file_ids"][0])
    message = await watcher.next()
    assert (message["batch"]["cancelled_files_count"], message["batch"]["revision"]) == (1, "2")


async def test_a_watch_resumes_anywhere_without_a_hole(door: GrpcDoor, watching: Any) -> None:
    made = await batch_of(door, 6)
    targets = {"batch_ids": [made["batch"]["batch_id"]], "include_batch_files": True}
    whole = watching(**targets)
    await whole.opening()
    await door.call("CancelBatch", batch_id=made["batch"]["batch_id"])
    await whole.until("BATCH_STATUS_CANCELLED")
    heard = [m for m in whole.heard if "bookmark" not in m]
    for index in range(len(heard)):
        resumed = watching(**targets, resume_token=heard[index]["resume_token"])
        rest = await resumed.opening()
        # The newest state of every row whose last change comes after the token: files cancelled, then the batch.
        expected = heard[max(7, index + 1) :]
        assert rest == expected


async def test_a_token_of_the_end_resumes_with_a_bookmark_alone(door: GrpcDoor, watching: Any) -> None:
    file_id = await initiate(door)
    first = watching(file_ids=[file_id])
    await first.opening()
    second = watching(file_ids=[file_id], resume_token=first.token)
    assert await second.opening() == []
    await door.call("CancelFile", file_id=file_id)
    await second.until("CANCELLED")


async def test_a_watch_goes_on_where_statistics_were_counted(door: GrpcDoor, watching: Any) -> None:
    counted_id = await initiate(door)
    answer = await door.call("GetStatistics")
    later_id = await initiate(door)
    watcher = watching(all=True, resume_token=answer["resume_token"])
    told = [message["file"]["file_id"] for message in await watcher.opening() if "file" in message]
    assert told.count(later_id) == 1
    assert counted_id not in told


async def test_until_final_with_nothing_left_ends_without_a_message(door: GrpcDoor, watching: Any) -> None:
    file_id = await initiate(door)
    await door.call("CancelFile", file_id=file_id)
    first = watching(file_ids=[file_id], until_final=True)
    while await first.next() is not None:
        pass
    assert [m["file"]["status"] for m in first.heard if "file" in m] == ["UPLOAD_STATUS_CANCELLED"]
    again = watching(file_ids=[file_id], until_final=True, resume_token=first.token)
    assert await again.next() is None


async def test_all_leaves_out_what_was_final_and_tells_everything_after(door: GrpcDoor, watching: Any) -> None:
    before, open_ = await initiate(door), await initiate(door)
    await door.call("CancelFile", file_id=before)
    watcher = watching(all=True)
    opening = {m["file"]["file_id"] for m in await watcher.opening() if "file" in m}
    assert open_ in opening
    assert before not in opening
    new = await initiate(door)
    await door.call("CancelFile", file_id=open_)
    seen: set[tuple[str, str]] = set()
    while not {(new, "UPLOAD_STATUS_PENDING"), (open_, "UPLOAD_STATUS_CANCELLED")} <= seen:
        message = await watcher.next()
        if "file" in message:
            seen.add((message["file"]["file_id"], message["file"]["status"]))


async def test_all_resumed_tells_what_became_final_meanwhile(door: GrpcDoor, watching: Any) -> None:
    open_, missed = await initiate(door), await initiate(door)
    first = watching(all=True)
    await first.opening()
    await first.close()
    await door.call("CancelFile", file_id=missed)
    resumed = watching(all=True, resume_token=first.token)
    statuses = {m["file"]["file_id"]: m["file"]["status"] for m in await resumed.opening() if "file" in m}
    assert statuses[missed] == "UPLOAD_STATUS_CANCELLED"
    assert open_ not in statuses
    assert resumed.heard[-1]["bookmark"] == {"resynced": False}


async def test_a_thousand_targets_are_watched(door: GrpcDoor, watching: Any) -> None:
    made = await batch_of(door, 999)
    targets = {"file_ids": made["file_ids"], "batch_ids": [made["batch"]["batch_id"]]}
    watcher = watching(**targets, until_final=True)
    assert [m["file"]["file_id"] for m in (await watcher.opening())[:-1]] == made["file_ids"]
    await door.call("CancelBatch", batch_id=made["batch"]["batch_id"])
    await watcher.until("BATCH_STATUS_CANCELLED")
    assert await watcher.next() is None
    assert sum(m["file"]["status"] == "UPLOAD_STATUS_CANCELLED" for m in watcher.heard if "file" in m) == 999


async def test_progress_is_told_when_asked_for_and_never_after_the_end(
    door: GrpcDoor, stub: Stub, watching: Any
) -> None:
    file_id = await initiate(door, 100)
    watcher = watching(file_ids=[file_id], progress_interval="0.1s", until_final=True)
    await watcher.opening()
    async with UploadCall(stub, file_id) as call:
        await call.send(b"x" * 40)
        while "progress" not in (message := await watcher.next()):
            pass
        assert message["progress"] == {"file_id": file_id, "bytes_received": "40"}
        assert message["resume_token"] == watcher.heard[-2]["resume_token"]
        await door.call("CancelFile", file_id=file_id)
        await watcher.until("CANCELLED")
    assert await watcher.next() is None


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        ({}, "file_ids"),
        ({"all": True, "file_ids": ["a"]}, "all"),
        ({"all": True, "until_final": True}, "until_final"),
        ({"file_ids": ["a"], "progress_interval": "0.05s"}, "progress_interval"),
        ({"file_ids": ["a"], "progress_interval": "-1s"}, "progress_interval"),
        ({"file_ids": ["x" * 129]}, "file_ids"),
        ({"file_ids": [""]}, "file_ids"),
        ({"file_ids": [f"{i}" for i in range(1001)]}, "file_ids"),
        ({"file_ids": ["a"], "resume_token": "nonsense"}, "resume_token"),
    ],
)
async def test_a_bad_watch_is_refused_naming_the_field(transport: WatchTransport, request_: Json, field: str) -> None:
    with pytest.raises(Refusal) as caught:
        await Watcher(transport(**request_)).next()
    assert caught.value.reason == "INVALID_FIELD"
    assert field in caught.value.violations


async def test_an_unknown_target_is_not_found_before_any_message(door: GrpcDoor, transport: WatchTransport) -> None:
    known = await initiate(door)
    for targets, reason in (
        ({"file_ids": [known, str(uuid.uuid4())]}, "FILE_NOT_FOUND"),
        ({"batch_ids": [str(uuid.uuid4())]}, "BATCH_NOT_FOUND"),
    ):
        watcher = Watcher(transport(**targets))
        with pytest.raises(Refusal) as caught:
            await watcher.next()
        assert (caught.value.code, caught.value.reason) == ("NOT_FOUND", reason)
        assert watcher.heard == []


async def test_a_token_of_another_store_gives_the_state_again(
    door: GrpcDoor, watching: Any, start_server: StartServer
) -> None:
    other = start_server()
    async with grpc.aio.insecure_channel(other.target) as channel:
        elsewhere = await initiate(GrpcDoor(channel))
        foreign = Watcher(grpc_watch(stub_on(channel))(file_ids=[elsewhere]))
        await foreign.opening()
        await foreign.close()
    file_id = await initiate(door)
    watcher = watching(file_ids=[file_id], resume_token=foreign.token)
    assert [m["file"]["file_id"] for m in await watcher.opening()] == [file_id]
    assert watcher.heard[-1]["bookmark"] == {"resynced": True}


async def test_a_watch_survives_a_kill_by_its_token(start_server: StartServer) -> None:
    first = start_server()
    async with grpc.aio.insecure_channel(first.target) as channel:
        door = GrpcDoor(channel)
        file_ids = [await initiate(door) for _ in range(3)]
        watcher = Watcher(grpc_watch(stub_on(channel))(file_ids=file_ids))
        await watcher.opening()
        await door.call("CancelFile", file_id=file_ids[0])
        first.kill()
        with contextlib.suppress(Refusal, AssertionError):
            while await watcher.next() is not None:
                pass
    token = next(m["resume_token"] for m in watcher.heard if "bookmark" in m)
    second = start_server()
    async with grpc.aio.insecure_channel(second.target) as channel:
        resumed = Watcher(grpc_watch(stub_on(channel))(file_ids=file_ids, resume_token=token))
        (missed,) = await resumed.opening()
        assert (missed["file"]["file_id"], missed["file"]["status"]) == (file_ids[0], "UPLOAD_STATUS_CANCELLED")
        assert resumed.heard[-1]["bookmark"] == {"resynced": False}
        await resumed.close()


async def test_a_token_beyond_a_restored_backup_gives_the_state_again(start_server: StartServer) -> None:
    first = start_server()
    async with grpc.aio.insecure_channel(first.target) as channel:
        file_id = await initiate(GrpcDoor(channel))
    assert first.terminate() == 0
    database = first.data_dir / "upload.sqlite3"
    backup = database.read_bytes()
    second = start_server()
    async with grpc.aio.insecure_channel(second.target) as channel:
        watcher = Watcher(grpc_watch(stub_on(channel))(file_ids=[file_id]))
        await watcher.opening()
        await GrpcDoor(channel).call("CancelFile", file_id=file_id)
        await watcher.until("CANCELLED")
        await watcher.close()
    assert second.terminate() == 0
    database.write_bytes(backup)
    third = start_server()
    async with grpc.aio.insecure_channel(third.target) as channel:
        resumed = Watcher(grpc_watch(stub_on(channel))(file_ids=[file_id], resume_token=watcher.token))
        (state,) = await resumed.opening()
        assert state["file"]["status"] == "UPLOAD_STATUS_PENDING"
        assert resumed.heard[-1]["bookmark"] == {"resynced": True}
        await resumed.close()


async def test_silence_is_broken_by_bookmarks(start_server: StartServer) -> None:
    server = start_server("--bookmark-interval", "200ms")
    async with grpc.aio.insecure_channel(server.target) as channel:
        door = GrpcDoor(channel)
        file_id, other = await initiate(door), await initiate(door)
        watcher = Watcher(grpc_watch(stub_on(channel))(file_ids=[file_id]))
        await watcher.opening()
        opened_at = watcher.token
        await door.call("CancelFile", file_id=other)
        # A change of somebody else's moves the token on all the same.
        async with asyncio.timeout(30):
            while watcher.token == opened_at:
                message = await watcher.next()
                assert message is not None
                assert message["bookmark"] == {"resynced": False}
        await watcher.close()


async def test_a_drain_ends_watches_as_unavailable(start_server: StartServer) -> None:
    server = start_server()
    async with grpc.aio.insecure_channel(server.target) as channel, httpx.AsyncClient(base_url=server.url) as client:
        file_id = await initiate(GrpcDoor(channel))
        transports = (grpc_watch(stub_on(channel)), ndjson_watch(client), sse_watch(client))
        watchers = [Watcher(transport(file_ids=[file_id])) for transport in transports]
        for watcher in watchers:
            await watcher.opening()
        stopping = asyncio.create_task(asyncio.to_thread(server.terminate))
        for watcher in watchers:
            with pytest.raises(Refusal) as caught:
                await watcher.next()
            assert (caught.value.code, caught.value.reason) == ("UNAVAILABLE", "SHUTTING_DOWN")
        assert await stopping == 0


async def test_a_slow_reader_gets_every_final_state(stub: Stub, door: GrpcDoor) -> None:
    """It reads nothing while 3,000 files come and go; the server keeps no line for it, and it misses no end."""
    watcher = Watcher(grpc_watch(stub)(all=True))
    await watcher.opening()
    file_ids: set[str] = set()
    for _ in range(3):
        made = await batch_of(door, 1000)
        file_ids.update(made["file_ids"])
        await door.call("CancelBatch", batch_id=made["batch"]["batch_id"])
    revisions: dict[str, int] = {}
    final: set[str] = set()
    while not file_ids <= final:
        message = await watcher.next()
        assert message is not None
        if "file" in message:
            file = message["file"]
            assert int(file["revision"]) > revisions.get(file["file_id"], 0)
            revisions[file["file_id"]] = int(file["revision"])
            if file["status"] == "UPLOAD_STATUS_CANCELLED":
                final.add(file["file_id"])
    await watcher.close()
