"""A server whose bytes lie in an object store: uploads by every door, cancels, resumes, kills, a store that fails."""

from __future__ import annotations

import asyncio
import hashlib
import os
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import grpc
import httpx
import psutil
import pytest
import websockets.asyncio.client

from support import object_store
from support.grpc_upload import CHUNK, UploadCall, stub_on, upload
from support.process import ServerProcess, StartServer
from support.proxy import FaultProxy, fault_proxy
from support.tokens import tokens_in
from upload.v1 import upload_pb2 as pb

if TYPE_CHECKING:
    from upload.v1.upload_pb2_grpc import UploadServiceAsyncStub as Stub

MIB = 1024 * 1024


@pytest.fixture(params=object_store.STORES)
def bucket(request: pytest.FixtureRequest) -> object_store.Bucket:
    return object_store.STORES[request.param]().new_bucket()


class Serve(Protocol):
    def __call__(self, *options: str, endpoint: str = "") -> ServerProcess: ...


@pytest.fixture
def serve(start_server: StartServer, bucket: object_store.Bucket) -> Serve:
    def start(*options: str, endpoint: str = "") -> ServerProcess:
        url = bucket.url(endpoint=endpoint)
        return start_server("--storage-url", url, *options, environment=object_store.environment())

    return start


@asynccontextmanager
async def stub_of(server: ServerProcess) -> AsyncIterator[Stub]:
    async with grpc.aio.insecure_channel(server.target) as channel:
        yield stub_on(channel)


@asynccontextmanager
async def proxied(serve: Serve, proxy: FaultProxy, *options: str) -> AsyncIterator[Stub]:
    """Start a server that reaches its store through a proxy of this loop's."""
    server = await asyncio.to_thread(serve, *options, endpoint=proxy.url)
    async with stub_of(server) as stub:
        yield stub


async def initiate(stub: Stub, size: int) -> str:
    answer = await stub.InitiateUpload(pb.InitiateUploadRequest(filename="a.bin", size_bytes=size))
    return answer.file.file_id


async def until(condition: Callable[[], bool], seconds: float = 30) -> None:
    """Wait for what an object store tells nobody."""
    async with asyncio.timeout(seconds):
        while not await asyncio.to_thread(condition):  # noqa: ASYNC110 - see above
            await asyncio.sleep(0.05)


def objects_of(bucket: object_store.Bucket, file_id: str) -> dict[str, int]:
    """Return all objects of a file."""
    return {key: size for key, size in bucket.objects().items() if file_id in key}


def whole(bucket: object_store.Bucket, file_id: str) -> bytes:
    """Return the bytes of a file that is completed: they lie in one object, whatever lies beside it for now."""
    (key,) = [key for key in objects_of(bucket, file_id) if key.startswith(f"up/loads/done/{file_id}/")]
    return bucket.read(key)


@pytest.mark.parametrize("size", [0, 10, 300_000, 8 * MIB, 20 * MIB + 3])
async def test_an_upload_by_grpc_becomes_one_object(serve: Serve, bucket: object_store.Bucket, size: int) -> None:
    data = os.urandom(size)
    async with stub_of(serve()) as stub:
        file_id = await initiate(stub, size)
        file = await upload(stub, file_id, data)
        assert file.status == pb.UPLOAD_STATUS_COMPLETED
        assert file.sha256 == hashlib.sha256(data).hexdigest()
        assert file.content_uri == ""
        assert whole(bucket, file_id) == data


async def test_what_a_file_was_put_together_of_goes(serve: Serve, bucket: object_store.Bucket) -> None:
    data = os.urandom(17 * MIB)
    async with stub_of(serve()) as stub:
        file_id = await initiate(stub, len(data))
        await upload(stub, file_id, data)
        await until(lambda: len(bucket.objects()) == 1, 60)
        assert whole(bucket, file_id) == data


async def test_an_upload_by_put_by_tus_and_by_websocket(serve: Serve, bucket: object_store.Bucket) -> None:
    server, data = serve(), os.urandom(9 * MIB)
    async with stub_of(server) as stub:
        put = await stub.PutFile(pb.PutFileRequest(filename="a", size_bytes=1000, data=data[:1000]))
        assert whole(bucket, put.file_id) == data[:1000]
        file_id = await initiate(stub, len(data))
        uri = f"{server.url.replace('http', 'ws')}/api/v1/upload/ws/{file_id}"
        async with websockets.asyncio.client.connect(uri) as socket:
            for start in range(0, len(data), CHUNK):
                await socket.send(data[start : start + CHUNK])
            async for message in socket:
                if "success" in str(message):
                    break
        assert whole(bucket, file_id) == data
    async with httpx.AsyncClient(base_url=server.url, headers={"Tus-Resumable": "1.0.0"}) as http:
        made = await http.post("/api/v1/tus", headers={"Upload-Length": str(len(data))})
        location = made.headers["Location"]
        headers = {"Upload-Offset": "0", "Content-Type": "application/offset+octet-stream"}
        sent = await http.patch(location, content=data, headers=headers, timeout=60)
        assert (sent.status_code, sent.headers["Upload-Offset"]) == (204, str(len(data)))
        assert whole(bucket, location.rsplit("/", 1)[-1]) == data


async def test_a_cancel_in_the_middle_leaves_no_object(serve: Serve, bucket: object_store.Bucket) -> None:
    async with stub_of(serve()) as stub:
        file_id = await initiate(stub, 100 * MIB)
        async with UploadCall(stub, file_id) as call:
            for _ in range(40):
                await call.send(os.urandom(CHUNK))
            await call.hear_durable(8 * MIB)
            assert objects_of(bucket, file_id)
            await stub.CancelFile(pb.CancelFileRequest(file_id=file_id))
            await call.hear_until("stopped")
        await until(lambda: not bucket.objects() and not bucket.uploads())


async def test_a_cancel_while_the_object_is_put_together_leaves_none(serve: Serve, bucket: object_store.Bucket) -> None:
    data = os.urandom(48 * MIB)
    async with stub_of(serve()) as stub:
        file_id = await initiate(stub, len(data))
        async with UploadCall(stub, file_id) as call:
            for start in range(0, len(data), CHUNK):
                await call.send(data[start : start + CHUNK])
            await call.commit()
            await until(lambda: bool(bucket.uploads()))
            answer = stub.CancelFile(pb.CancelFileRequest(file_id=file_id))
            try:
                await answer
                assert (await call.hear_until("stopped")).stopped.status == pb.UPLOAD_STATUS_CANCELLED
            except grpc.aio.AioRpcError:
                # The commit was faster.
                assert (await stub.GetFile(pb.GetFileRequest(file_id=file_id))).status == pb.UPLOAD_STATUS_COMPLETED
                return
        # The first look may come before the store has done what it was asked for: so there is a second.
        await until(lambda: not bucket.objects() and not bucket.uploads(), 60)


async def test_a_resumed_upload_goes_on_behind_its_prefix(serve: Serve, bucket: object_store.Bucket) -> None:
    data = os.urandom(21 * MIB)
    server = serve()
    async with stub_of(server) as stub:
        file_id = await initiate(stub, len(data))
        for first, last in ((0, 3 * MIB), (3 * MIB, 8 * MIB), (8 * MIB, 13 * MIB + 5)):
            async with UploadCall(stub, file_id, first) as call:
                await call.send_all(data[first:last])
                await call.half_close()
                while await call.hear() is not None:
                    pass
        file = await upload(stub, file_id, data[13 * MIB + 5 :], 13 * MIB + 5)
        assert file.sha256 == hashlib.sha256(data).hexdigest()
        assert whole(bucket, file_id) == data


async def test_a_server_that_is_killed_in_the_middle_goes_on_after_its_next_start(
    serve: Serve, bucket: object_store.Bucket
) -> None:
    data = os.urandom(30 * MIB)
    server = serve()
    async with stub_of(server) as stub:
        file_id, gone = await initiate(stub, len(data)), await initiate(stub, len(data))
        async with UploadCall(stub, file_id) as call, UploadCall(stub, gone) as other:
            await asyncio.gather(call.send_all(data[: 20 * MIB]), other.send_all(data[: 9 * MIB]))
            await asyncio.gather(call.hear_durable(8 * MIB), other.hear_durable(8 * MIB))
            server.kill()
    again = serve()
    async with stub_of(again) as stub:
        offset = (await stub.GetFile(pb.GetFileRequest(file_id=file_id))).bytes_received
        assert offset >= 8 * MIB
        file = await upload(stub, file_id, data[offset:], offset)
        assert file.sha256 == hashlib.sha256(data).hexdigest()
        await stub.CancelFile(pb.CancelFileRequest(file_id=gone))
        assert whole(bucket, file_id) == data
        await until(lambda: not objects_of(bucket, gone))


async def test_a_store_that_is_away_for_a_moment_holds_an_upload_up_and_ends_none(
    serve: Serve, bucket: object_store.Bucket
) -> None:
    data = os.urandom(24 * MIB)
    async with fault_proxy(bucket.store.port) as proxy, proxied(serve, proxy) as stub:
        file_id = await initiate(stub, len(data))
        async with UploadCall(stub, file_id) as call:
            sending = asyncio.create_task(call.send_all(data))
            await call.hear_durable(8 * MIB)
            proxy.away = True
            proxy.reset_all()
            # So long that requests were refused meanwhile.
            seen = proxy.accepted
            async with asyncio.timeout(20):
                while proxy.accepted < seen + 3:  # noqa: ASYNC110 - a proxy rings no bell
                    await asyncio.sleep(0.02)
            proxy.away = False
            await sending
            await call.commit()
            file = (await call.hear_until("completed")).completed
        assert file.sha256 == hashlib.sha256(data).hexdigest()
        assert whole(bucket, file_id) == data


async def test_a_store_that_stays_away_fails_the_stream_and_the_file_can_be_resumed(
    serve: Serve, bucket: object_store.Bucket
) -> None:
    data = os.urandom(9 * MIB)
    async with fault_proxy(bucket.store.port) as proxy, proxied(serve, proxy) as stub:
        file_id = await initiate(stub, len(data))
        async with UploadCall(stub, file_id) as call:
            await call.send_all(data[: 8 * MIB])
            await call.hear_durable(8 * MIB)
            proxy.away = True
            proxy.reset_all()
            await call.send(data[8 * MIB : 8 * MIB + 1000])
            assert (await asyncio.wait_for(call.refused(), 40)).reason == "STORAGE_FAILURE"
        proxy.away = False
        file = await upload(stub, file_id, data[8 * MIB :], 8 * MIB)
        assert file.sha256 == hashlib.sha256(data).hexdigest()
        assert whole(bucket, file_id) == data


async def test_completed_files_say_where_they_lie_if_that_is_wanted(serve: Serve, bucket: object_store.Bucket) -> None:
    server, data = serve("--publish-content-uri", "true"), os.urandom(300_000)
    async with stub_of(server) as stub:
        file_id = await initiate(stub, len(data))
        assert (await stub.GetFile(pb.GetFileRequest(file_id=file_id))).content_uri == ""
        watch = stub.WatchStatus(pb.WatchStatusRequest(file_ids=[file_id], until_final=True))
        file = await upload(stub, file_id, data)
        assert file.content_uri.startswith(f"s3://{bucket.name}/up/loads/done/{file_id}/")
        assert bucket.read(file.content_uri.removeprefix(f"s3://{bucket.name}/")) == data
        assert await stub.GetFile(pb.GetFileRequest(file_id=file_id)) == file
        assert (await stub.ListFiles(pb.ListFilesRequest())).files[0] == file
        assert [event.file async for event in watch if event.HasField("file")][-1] == file
        put = await stub.PutFile(pb.PutFileRequest(filename="a", size_bytes=5, data=b"small"))
        assert bucket.read(put.content_uri.removeprefix(f"s3://{bucket.name}/")) == b"small"
    async with httpx.AsyncClient(base_url=server.url) as http:
        assert (await http.get(f"/api/v1/files/{file_id}")).json()["content_uri"] == file.content_uri


async def test_nothing_of_a_secret_is_shown(serve: Serve, bucket: object_store.Bucket) -> None:
    async with fault_proxy(bucket.store.port) as proxy:
        server = await asyncio.to_thread(serve, "--log-level", "debug", endpoint=proxy.url)
        async with stub_of(server) as stub:
            file_id = await initiate(stub, 1000)
            proxy.away = True
            proxy.reset_all()
            async with UploadCall(stub, file_id) as call:
                await call.send(b"x" * 1000)
                await asyncio.wait_for(call.refused(), 40)
        async with httpx.AsyncClient(base_url=server.url) as http:
            metrics = (await http.get("/metrics")).text
        shown = f"{server.log} {metrics} {psutil.Process(server.pid).cmdline()}"
        assert object_store.SECRET_KEY not in shown
        assert object_store.ACCESS_KEY not in shown


def test_a_start_that_cannot_be_says_why_in_one_line(bucket: object_store.Bucket, tmp_path: Path) -> None:
    url = bucket.url().replace(bucket.name, "no-such-bucket-here")
    command = [sys.executable, "-m", "upload_server", "serve", "--grpc-port", "0", "--http-port", "0"]
    environment = {**os.environ, **object_store.environment(), "UPLOAD_STORAGE_URL": url}
    done = subprocess.run(
        [*command, "--data-dir", str(tmp_path)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert "--storage-url: there is no bucket no-such-bucket-here" in last
    assert object_store.SECRET_KEY not in done.stderr


def problem(start: Callable[[], object]) -> str:
    """Return what a server that cannot start says."""
    with pytest.raises(AssertionError, match="cannot start") as refused:
        start()
    return str(refused.value)


@pytest.mark.parametrize("kind", ["folder", "s3-seaweed"])
async def test_a_place_is_one_databases_own(kind: str, start_server: StartServer, tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    here, elsewhere = ((tmp_path / "shared" / name).as_uri() for name in ("one", "other"))
    if kind != "folder":
        bucket = object_store.STORES[kind]().new_bucket()
        here, elsewhere = bucket.url("one"), bucket.url("other")

    # Whoever its files belong to.
    tokens = tokens_in(tmp_path)

    def start(data: str, url: str) -> ServerProcess:
        options = ("--storage-url", url, *tokens.options)
        return start_server(*options, data_dir=tmp_path / data, environment=object_store.environment())

    server = start("a", here)
    async with stub_of(server) as stub:
        put = pb.PutFileRequest(filename="a", size_bytes=5, data=b"bytes")
        assert (await stub.PutFile(put, metadata=tokens.metadata("owner"))).owner
    server.terminate()
    assert "belongs to another database" in problem(lambda: start("b", here))
    assert "nothing lies there, but the database has files" in problem(lambda: start("a", elsewhere))
    start("a", here).terminate()


async def test_the_operators_check_sees_what_lies_in_the_bucket(serve: Serve, bucket: object_store.Bucket) -> None:
    server, data = serve(), os.urandom(9 * MIB)
    async with stub_of(server) as stub:
        file_id = await initiate(stub, len(data))
        await upload(stub, file_id, data)
        assert whole(bucket, file_id) == data

        def check(*options: str) -> subprocess.CompletedProcess[str]:
            command = [sys.executable, "-m", "upload_server", "check", "--data-dir", str(server.data_dir), *options]
            environment = {**os.environ, **object_store.environment(), "UPLOAD_STORAGE_URL": bucket.url()}
            return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

        fine = await asyncio.to_thread(check, "--hash")
        assert fine.returncode == 0, fine.stdout + fine.stderr
        assert "1 hashed" in fine.stdout
    server.terminate()
    bucket.put(f"up/loads/done/{uuid.uuid4()}/1", b"nobody's")
    found = await asyncio.to_thread(check)
    assert found.returncode == 1
    assert "no row knows them" in found.stdout
    mended = await asyncio.to_thread(check, "--repair", "--delete-unknown")
    assert mended.returncode == 0, mended.stdout
    assert whole(bucket, file_id) == data
    for key in objects_of(bucket, file_id):
        bucket.client.delete_object(Bucket=bucket.name, Key=key)
    lost = await asyncio.to_thread(check)
    assert f"the {len(data)} bytes of file {file_id} (completed) are missing" in lost.stdout
