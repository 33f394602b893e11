"""A gRPC call that is no stream has one message: one that never comes, or comes late, ends the call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import httpx
import pytest

from support.doors import Refusal, refusal_of_rpc
from support.process import ServerProcess, StartServer

UNARY = [
    f"upload.v1.UploadService/{method}"
    for method in ("InitiateUpload", "InitiateBatch", "GetFile", "ListFiles", "GetBatch", "CancelFile", "CancelBatch")
]
METHODS = [
    *UNARY,
    "upload.v1.UploadService/ListAuditEvents",
    "upload.v1.UploadService/WatchStatus",
    "grpc.health.v1.Health/Check",
    "grpc.health.v1.Health/Watch",
]


async def ended(channel: grpc.aio.Channel, method: str, messages: Iterator[bytes] | AsyncIterator[bytes]) -> Refusal:
    """How a call with these messages ends; it must end within 20 s."""
    call: Any = channel.stream_stream(f"/{method}")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await asyncio.wait_for(call(messages).read(), 20)
    return refusal_of_rpc(caught.value)


async def nothing() -> AsyncIterator[bytes]:
    """Messages that never come, of a call that is not closed either."""
    await asyncio.Event().wait()
    yield b""


@pytest.mark.parametrize("method", METHODS)
async def test_a_call_that_ends_without_its_message_is_refused_at_once(channel: grpc.aio.Channel, method: str) -> None:
    refusal = await ended(channel, method, iter([]))
    assert (refusal.code, refusal.reason) == ("INVALID_ARGUMENT", "UNEXPECTED_MESSAGE")


def counted(server: ServerProcess) -> str:
    return httpx.get(f"{server.url}/metrics").text


async def test_a_call_whose_message_does_not_come_ends_within_the_call_timeout(start_server: StartServer) -> None:
    server = start_server("--call-timeout", "1s")
    async with grpc.aio.insecure_channel(server.target) as channel:
        refusals = await asyncio.gather(*(ended(channel, method, nothing()) for method in METHODS[-4:]))
        refusals += await asyncio.gather(*(ended(channel, method, nothing()) for method in UNARY[3:]))
    assert {(refusal.code, refusal.reason) for refusal in refusals} == {("INVALID_ARGUMENT", "UNEXPECTED_MESSAGE")}
    assert {refusal.message for refusal in refusals} == {"The call's message did not come within 1 s"}
    # They are counted as every call.
    async with asyncio.timeout(30):
        # Counted behind the answer.
        while 'code="INVALID_ARGUMENT",door="grpc",method="CancelFile"} 1.0' not in counted(server):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    # It is the caller's fault, not the server's.
    assert [line for line in server.log if line["level"] in {"error", "warning"}] == []


async def test_of_many_late_messages_the_oldest_are_given_up(channel: grpc.aio.Channel) -> None:
    """grpcio holds what has come of each, up to the largest message."""
    calls = [asyncio.create_task(ended(channel, "upload.v1.UploadService/GetFile", nothing())) for _ in range(40)]
    for _ in range(32):
        done, _ = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        calls = [call for call in calls if call not in done]
        assert {call.result().reason for call in done} == {"OVERLOADED"}
        if len(calls) == 8:
            break
    assert len(calls) == 8
    # Cancels have places of their own, and a prompt call needs none.
    refusal = await ended(channel, "upload.v1.UploadService/GetFile", iter([b"\n\x01a"]))
    assert refusal.reason == "FILE_NOT_FOUND"
    for call in calls:
        call.cancel()


async def test_calls_that_are_given_up_in_masses_leave_no_error_in_the_log(start_server: StartServer) -> None:
    server = start_server()
    async with grpc.aio.insecure_channel(server.target) as channel:
        cancel: Any = channel.stream_unary("/upload.v1.UploadService/CancelFile")
        for _ in range(20):
            calls = [cancel(nothing()) for _ in range(50)]
            await asyncio.sleep(0.002)
            for call in calls:
                call.cancel()
        refusal = await ended(channel, "upload.v1.UploadService/CancelFile", iter([b"\n\x01a"]))
    assert refusal.reason == "FILE_NOT_FOUND"
    assert [line for line in server.log if line["level"] in {"error", "warning"}] == []
