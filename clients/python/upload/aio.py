"""Drives the client's operations on an asyncio loop, over grpc.aio.

Channels are made on first use, in the loop that uses them: one loop per process (grpcio does not bear two).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable

import grpc
from grpc import aio

from upload.channel import Lane, channel_options
from upload.errors import NotSignedIn, UploadServiceError
from upload.statuses import as_failure, error_from
from upload.tokens import Authorization
from upload.transport import Endpoint, Method, P, Request, Response, T
from upload.v1 import upload_pb2 as pb
from upload.v1 import upload_pb2_grpc


class _Signal:
    def __init__(self) -> None:
        self._event = asyncio.Event()

    def set(self) -> None:
        self._event.set()

    async def wait(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                return await self._event.wait()
        except TimeoutError:
            return False


class AioTransport:
    """``Transport`` for asyncio."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._authorization = Authorization(tuple(endpoint.metadata), endpoint.token)
        self._channels: dict[Lane, tuple[aio.Channel, upload_pb2_grpc.UploadServiceAsyncStub]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    async def unary(self, method: Method[Request, Response], request: Request, seconds: float) -> Response:
        """Make one unary call."""
        call = getattr(self._stub(method.lane), method.name)
        for is_last in (False, True):
            metadata = await self._metadata()
            try:
                response: Response = await call(request, timeout=seconds, metadata=metadata)
            except grpc.RpcError as error:
                refused = await self._refused(error)
                if is_last or not refused.refreshed:
                    raise refused from error
            else:
                return response
        raise AssertionError("the second try returns or raises")

    async def upload(
        self, requests: AsyncIterator[pb.UploadFileRequest]
    ) -> AsyncGenerator[pb.UploadFileResponse, None]:
        """Open an upload stream."""
        call = self._stub(Lane.MAIN).UploadFile(requests, metadata=await self._metadata())
        try:
            async for response in call:
                yield response
        except grpc.RpcError as error:
            raise await self._refused(error) from error
        finally:
            call.cancel()

    async def stream(self, method: Method[Request, Response], request: Request) -> AsyncGenerator[Response, None]:
        """Open a stream of the server's."""
        call = getattr(self._stub(method.lane), method.name)(request, metadata=await self._metadata())
        try:
            async for response in call:
                yield response
        except grpc.RpcError as error:
            raise await self._refused(error) from error
        finally:
            call.cancel()

    async def _metadata(self) -> tuple[tuple[str, str], ...]:
        if not self._authorization.blocks:
            return self._authorization.metadata()
        return await self.run(self._authorization.metadata)

    async def _refused(self, error: grpc.RpcError) -> UploadServiceError:
        """Return what a call failed with; a token that the server did not take is asked for anew."""
        failed = error_from(as_failure(error))
        if isinstance(failed, NotSignedIn):
            failed.refreshed = await self.run(self._authorization.refresh)
        return failed

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run in a worker thread."""
        return await asyncio.to_thread(function, *args, **kwargs)

    async def each(self, work: Callable[[T], Awaitable[None]], items: Iterable[T], at_once: int) -> None:
        """Do it in tasks."""
        queue = iter(items)

        async def some() -> None:
            for item in queue:
                await work(item)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(at_once):
                    group.create_task(some())
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)

    def lock(self) -> asyncio.Lock:
        """Return a new lock."""
        return asyncio.Lock()

    def signal(self) -> _Signal:
        """Return a new signal."""
        return _Signal()

    async def close(self) -> None:
        """Close every connection."""
        self._closed = True
        channels = list(self._channels.values())
        self._channels.clear()
        for channel, _ in channels:
            await channel.close()

    def _stub(self, lane: Lane) -> upload_pb2_grpc.UploadServiceAsyncStub:
        if self._closed:
            raise RuntimeError("The client is closed: make another one")
        loop = asyncio.get_running_loop()
        if self._loop not in {None, loop}:
            raise RuntimeError("One client, one event loop: this one was used in another before")
        self._loop = loop
        if lane not in self._channels:
            channel = self._connect(lane)
            self._channels[lane] = channel, upload_pb2_grpc.UploadServiceStub(channel)
        return self._channels[lane][1]

    def _connect(self, lane: Lane) -> aio.Channel:
        endpoint = self._endpoint
        options = channel_options(endpoint.target, lane, endpoint.options)
        if endpoint.credentials is None:
            return aio.insecure_channel(endpoint.target, options)
        return aio.secure_channel(endpoint.target, endpoint.credentials, options)
