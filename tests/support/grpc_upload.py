"""An UploadFile stream, driven message by message: hides nothing of what the server says."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from types import TracebackType
from typing import TYPE_CHECKING, Self

import grpc

from support.doors import Refusal, refusal_of_rpc
from upload.v1 import upload_pb2 as pb
from upload.v1 import upload_pb2_grpc

if TYPE_CHECKING:
    from upload.v1.upload_pb2_grpc import UploadServiceAsyncStub as Stub

CHUNK = 256 * 1024


def stub_on(channel: grpc.aio.Channel) -> Stub:
    """Return the generated stub on a channel."""
    return upload_pb2_grpc.UploadServiceStub(channel)


class UploadCall:
    """One open UploadFile call. ``async with`` it: it is cancelled if the test leaves it open."""

    def __init__(
        self, stub: Stub, file_id: str = "", offset: int = 0, metadata: tuple[tuple[str, str], ...] = ()
    ) -> None:
        self._outgoing: asyncio.Queue[pb.UploadFileRequest | None] = asyncio.Queue(4)
        self.call = stub.UploadFile(self._requests(), metadata=metadata)
        self.heard: list[pb.UploadFileResponse] = []
        self._header = pb.UploadFileRequest(header=pb.UploadHeader(file_id=file_id, offset=offset)) if file_id else None

    async def _requests(self) -> AsyncIterator[pb.UploadFileRequest]:
        while (message := await self._outgoing.get()) is not None:
            yield message

    async def __aenter__(self) -> Self:
        if self._header is not None:
            await self.say(self._header)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.call.cancel()

    async def say(self, message: pb.UploadFileRequest) -> None:
        """Send any message."""
        await self._outgoing.put(message)

    async def send(self, data: bytes) -> None:
        """Send bytes."""
        await self.say(pb.UploadFileRequest(data=data))

    async def send_all(self, data: bytes) -> None:
        """Send bytes in messages of a usual size."""
        for start in range(0, len(data), CHUNK):
            await self.send(data[start : start + CHUNK])

    async def commit(self, sha256: str = "") -> None:
        """Send the commit."""
        await self.say(pb.UploadFileRequest(commit=pb.UploadCommit(sha256=sha256)))

    async def half_close(self) -> None:
        """End the stream of requests."""
        await self._outgoing.put(None)

    async def hear(self) -> pb.UploadFileResponse | None:
        """Return the next message, None when the server ended with OK; raises Refusal."""
        try:
            message = await asyncio.wait_for(anext(aiter(self.call)), 60)
        except StopAsyncIteration:
            return None
        except grpc.aio.AioRpcError as error:
            raise refusal_of_rpc(error) from None
        self.heard.append(message)
        return message

    async def hear_until(self, what: str) -> pb.UploadFileResponse:
        """Return the next message of a kind (``progress``, ``completed``, ``stopped``), passing over progress."""
        while (message := await self.hear()) is not None:
            kind = message.WhichOneof("message")
            if kind == what:
                return message
            assert kind == "progress", f"{kind} instead of {what}"
        raise AssertionError(f"the stream ended without {what}")

    async def hear_durable(self, count: int) -> None:
        """Wait until ``count`` bytes are durable."""
        while (await self.hear_until("progress")).progress.bytes_received < count:
            pass

    async def refused(self) -> Refusal:
        """Return what the call is refused with, whatever is said before."""
        try:
            while await self.hear() is not None:
                pass
        except Refusal as refusal:
            return refusal
        raise AssertionError("the call was not refused")


async def upload(stub: Stub, file_id: str, data: bytes, offset: int = 0) -> pb.File:
    """Send all of ``data`` and commit with its digest (when it is the whole file)."""
    async with UploadCall(stub, file_id, offset) as call:

        async def send() -> None:
            for start in range(0, len(data), CHUNK):
                await call.send(data[start : start + CHUNK])
            await call.commit("" if offset else hashlib.sha256(data).hexdigest())

        sending = asyncio.create_task(send())
        try:
            return (await call.hear_until("completed")).completed
        finally:
            sending.cancel()


async def refusal_of_all_bytes(stub: Stub, file_id: str, size: int) -> Refusal:
    """Send ``size`` bytes, which the server has no room for, and return what it says.

    A sender that is busy writing when its stream ends may hear grpcio's own error. So a second stream goes on from
    what is durable, and sends a message only when the one before is durable too.
    """
    async with UploadCall(stub, file_id) as call:
        sending = asyncio.create_task(call.send_all(bytes(size)))
        await asyncio.gather(call.refused(), return_exceptions=True)
        sending.cancel()
    durable = (await stub.GetFile(pb.GetFileRequest(file_id=file_id))).bytes_received
    async with UploadCall(stub, file_id, durable) as call:
        try:
            while durable < size:
                await call.send(bytes(CHUNK))
                durable += CHUNK
                await call.hear_durable(durable)
        except Refusal as refusal:
            return refusal
    raise AssertionError("there was room for all bytes")
