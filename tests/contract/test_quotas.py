"""A principal over its quotas is refused, through every door, can make room by its cancels, and hinders nobody else."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import httpx
import pytest
import websockets

from support.doors import refusal_of_json, refusal_of_rpc
from support.process import ServerProcess
from support.tokens import Tokens
from upload.v1 import upload_pb2 as pb

if TYPE_CHECKING:
    from upload.v1.upload_pb2_grpc import UploadServiceAsyncStub as Stub

OPEN = 5


@pytest.fixture(scope="module")
def quotas_file(tokens: Tokens) -> Path:
    path = tokens.path.with_name("quotas")
    path.touch(0o600)
    path.write_text("large watches=2 calls=0\nslow calls=1\n")
    tokens.add("payer", "carol", "user", quota="large")
    tokens.add("hasty", "dan", "user", quota="slow")
    return path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, tokens: Tokens, quotas_file: Path) -> Iterator[ServerProcess]:
    quotas = ("--quota-open-files", f"{OPEN}", "--quota-watches", "1", "--quota-calls", "50")
    with ServerProcess(
        tmp_path_factory.mktemp("server"), (*tokens.options, *quotas, "--quotas-file", str(quotas_file))
    ) as process:
        yield process


async def test_over_its_quota_a_principal_is_refused_and_its_cancels_make_room(
    stub: Stub, server: ServerProcess, tokens: Tokens
) -> None:
    mine = tokens.metadata("owner")
    request = pb.InitiateUploadRequest(filename="a.bin", size_bytes=10)
    ids = [(await stub.InitiateUpload(request, metadata=mine)).file.file_id for _ in range(OPEN)]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.InitiateUpload(request, metadata=mine)
    refusal = refusal_of_rpc(caught.value)
    assert (caught.value.code(), refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUOTA_EXCEEDED")
    assert refusal.quotas == {"principal:ada": refusal.message}
    assert refusal.retry_seconds == 0
    assert refusal.metadata == {"limit": "open-files", "quota": f"{OPEN}", "used": f"{OPEN}"}
    two = pb.InitiateBatchRequest(files=[pb.FileSpec(filename="a", size_bytes=1)] * 2)
    with pytest.raises(grpc.aio.AioRpcError, match="Your quota of open-files"):
        await stub.InitiateBatch(two, metadata=mine)
    async with httpx.AsyncClient(base_url=server.url) as http:
        response = await http.post("/api/v1/upload/initiate", json={"filename": "a"}, headers=tokens.header("owner"))
        assert (response.status_code, refusal_of_json(response.json()).reason) == (429, "QUOTA_EXCEEDED")
        assert "retry-after" not in response.headers
        me = (await http.get("/api/v1/me", headers=tokens.header("owner"))).json()
    assert {"name": "open-files", "limit": f"{OPEN}", "used": f"{OPEN}"} in me["quotas"]
    await stub.InitiateUpload(request, metadata=tokens.metadata("other"))

    await stub.CancelFile(pb.CancelFileRequest(file_id=ids[0]), metadata=mine)
    async with asyncio.timeout(20):
        while True:
            try:
                await stub.InitiateUpload(request, metadata=mine)
                break
            except grpc.aio.AioRpcError as error:
                assert refusal_of_rpc(error).reason == "QUOTA_EXCEEDED"  # noqa: PT017 - it may still be refused
                # Calls at full speed have a quota of their own.
                await asyncio.sleep(0.05)


async def test_another_watch_than_allowed_is_refused_and_that_of_another_is_not(stub: Stub, tokens: Tokens) -> None:
    watches = [
        stub.WatchStatus(pb.WatchStatusRequest(all=True), metadata=tokens.metadata(who)) for who in ("owner", "other")
    ]
    for watch in watches:
        async with asyncio.timeout(20):
            async for message in watch:
                if message.HasField("bookmark"):
                    break
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await anext(aiter(stub.WatchStatus(pb.WatchStatusRequest(all=True), metadata=tokens.metadata("owner"))))
    assert refusal_of_rpc(caught.value).metadata["limit"] == "watches"
    for watch in watches:
        watch.cancel()


async def test_whose_token_names_quotas_has_those_as_they_are_now(
    stub: Stub, tokens: Tokens, quotas_file: Path
) -> None:
    mine = tokens.metadata("payer")

    async def bounds() -> dict[str, int]:
        return {
            quota.name: quota.limit for quota in (await stub.GetCaller(pb.GetCallerRequest(), metadata=mine)).quotas
        }

    assert (await bounds()).items() >= {"watches": 2, "open-files": OPEN}.items()
    watches = [stub.WatchStatus(pb.WatchStatusRequest(all=True), metadata=mine) for _ in range(2)]
    for watch in watches:
        await anext(aiter(watch))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await anext(aiter(stub.WatchStatus(pb.WatchStatusRequest(all=True), metadata=mine)))
    assert refusal_of_rpc(caught.value).metadata == {"limit": "watches", "quota": "2", "used": "2"}
    quotas_file.write_text("large watches=3 calls=0\nslow calls=1\n")  # noqa: ASYNC240 - a small file, which nobody waits for
    async with asyncio.timeout(20):
        while (await bounds())["watches"] != 3:  # noqa: ASYNC110 - nobody announces it
            await asyncio.sleep(0.05)
    watches.append(stub.WatchStatus(pb.WatchStatusRequest(all=True), metadata=mine))
    await anext(aiter(watches[-1]))
    for watch in watches:
        watch.cancel()


async def test_who_calls_too_often_hears_when_to_come_back_and_cancels_all_the_same(stub: Stub, tokens: Tokens) -> None:
    refused: list[grpc.aio.AioRpcError] = []
    async with asyncio.timeout(60):
        # Many at once: one after the other they may be slower than the rate, on a busy machine.
        while not refused:
            request, mine = pb.GetStatisticsRequest(), tokens.metadata("owner")
            calls = (stub.GetStatistics(request, metadata=mine) for _ in range(200))
            ends = await asyncio.gather(*calls, return_exceptions=True)
            refused = [end for end in ends if isinstance(end, grpc.aio.AioRpcError)]
    refusal = refusal_of_rpc(refused[0])
    assert (refusal.reason, 0 < refusal.retry_seconds <= 0.1) == ("RATE_EXCEEDED", True)
    with pytest.raises(grpc.aio.AioRpcError) as unknown:
        await stub.CancelFile(pb.CancelFileRequest(file_id="nothing"), metadata=tokens.metadata("owner"))
    assert unknown.value.code() is grpc.StatusCode.NOT_FOUND
    await stub.GetStatistics(pb.GetStatisticsRequest(), metadata=tokens.metadata("other"))


async def test_a_call_with_a_body_counts_once_and_too_often_is_refused_before_any_byte_of_it(
    server: ServerProcess, tokens: Tokens
) -> None:
    mine = tokens.header("hasty")
    async with httpx.AsyncClient(base_url=server.url, headers=mine, timeout=20) as http:
        # Two at once is all that a rate of one a second has.
        for _ in range(2):
            assert (await http.post("/api/v1/upload/initiate", json={"filename": "a"})).status_code == 200
    head = "POST /api/v1/upload/initiate HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100000\r\n"
    answered = b""
    async with asyncio.timeout(20):
        while not answered:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.http_port)
            writer.write(f"{head}authorization: {mine['authorization']}\r\n\r\n".encode())
            # One may be let in, when that took so long that the rate has a call again: it waits for its body.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.5):
                    answered = await reader.readuntil(b"\r\n\r\n")
            writer.close()
    assert answered.startswith(b"HTTP/1.1 429 ")
    assert b"\r\nretry-after: 1\r\n" in answered
    # A socket that comes too often is closed with the number of quotas, not with that of an overload.
    async with asyncio.timeout(20):
        while (closed := await end_of_socket(server, mine))[0] != "RATE_EXCEEDED":
            pass
    assert closed == ("RATE_EXCEEDED", 4429)


async def end_of_socket(server: ServerProcess, headers: dict[str, str]) -> tuple[str, int]:
    """With which reason and close code a socket for an unknown file ends."""
    url = f"ws://127.0.0.1:{server.http_port}/api/v1/upload/ws/unknown"
    async with websockets.connect(url, additional_headers=headers) as socket:
        message = json.loads(await socket.recv())
        await socket.wait_closed()
    return message["error"]["details"][0]["reason"], socket.close_code or 0


async def test_messages_that_are_late_keep_no_turn_from_other_calls_of_their_principal(
    channel: grpc.aio.Channel, stub: Stub, tokens: Tokens
) -> None:
    serialise, parse = pb.GetFileRequest.SerializeToString, pb.File.FromString
    method = channel.stream_unary("/upload.v1.UploadService/GetFile", serialise, parse)
    over = asyncio.Event()

    async def nothing() -> AsyncIterator[pb.GetFileRequest]:
        await over.wait()
        yield pb.GetFileRequest()

    mine = tokens.metadata("payer")
    await stub.GetCaller(pb.GetCallerRequest(), metadata=tokens.metadata("other"))
    late = [method(nothing(), metadata=mine) for _ in range(6)]
    # Their messages may take longer than this.
    async with asyncio.timeout(30):
        await stub.GetCaller(pb.GetCallerRequest(), metadata=mine)
    for call in late:
        call.cancel()
