"""Drives the client's operations without a loop, over gRPC's synchronous stubs: nothing here ever suspends.

A coroutine whose awaits all return at once runs through in one step, in the caller's thread, like a function.
"""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType

import grpc

from upload.channel import Lane, channel_options
from upload.errors import NotSignedIn, UploadServiceError
from upload.statuses import as_failure, error_from
from upload.tokens import Authorization
from upload.transport import Endpoint, Method, P, Request, Response, T
from upload.v1 import upload_pb2 as pb
from upload.v1 import upload_pb2_grpc


def drive(awaitable: Awaitable[T]) -> T:
    """Run a coroutine that never suspends to its end."""
    steps = awaitable.__await__()
    try:
        next(steps)
    except StopIteration as done:
        result: T = done.value
        return result
    raise RuntimeError("An operation of the synchronous client awaited something other than its transport")


def drive_all(items: AsyncIterator[T]) -> Iterator[T]:
    """Iterate over a generator that never suspends; closing this closes it."""
    try:
        while True:
            try:
                item = drive(anext(items))
            except StopAsyncIteration:
                return
            yield item
    finally:
        if isinstance(items, AsyncGenerator):
            drive(items.aclose())


class _Lock:
    """A thread's lock with the interface of a coroutine's."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def locked(self) -> bool:
        return self._lock.locked()

    async def __aenter__(self) -> None:
        self._lock.acquire()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()


class _Signal:
    """A thread's event with the interface of a coroutine's."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> None:
        self._event.set()

    async def wait(self, seconds: float) -> bool:
        return self._event.wait(seconds)


class BlockingTransport:
    """``Transport`` for plain threads."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._authorization = Authorization(tuple(endpoint.metadata), endpoint.token)
        self._channels: dict[Lane, tuple[grpc.Channel, upload_pb2_grpc.UploadServiceStub]] = {}
        self._closed = False
        # Guards `_channels`: clients may be shared by threads.
        self._making = threading.Lock()

    async def unary(self, method: Method[Request, Response], request: Request, seconds: float) -> Response:
        """Make one unary call."""
        call = getattr(self._stub(method.lane), method.name)
        for is_last in (False, True):
            metadata = await self._metadata()
            try:
                response: Response = call(request, timeout=seconds, metadata=metadata)
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
        """Open an upload stream; gRPC takes the requests in a thread of its own."""
        call = self._stub(Lane.MAIN).UploadFile(drive_all(requests), metadata=await self._metadata())
        try:
            for response in call:
                yield response
        except grpc.RpcError as error:
            raise await self._refused(error) from error
        finally:
            call.cancel()

    async def stream(self, method: Method[Request, Response], request: Request) -> AsyncGenerator[Response, None]:
        """Open a stream of the server's."""
        call = getattr(self._stub(method.lane), method.name)(request, metadata=await self._metadata())
        try:
            for response in call:
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
        """Run here."""
        return function(*args, **kwargs)

    async def each(self, work: Callable[[T], Awaitable[None]], items: Iterable[T], at_once: int) -> None:
        """Do it in threads."""
        with ThreadPoolExecutor(at_once) as pool:
            for _ in pool.map(lambda item: drive(work(item)), items):
                pass

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)  # noqa: ASYNC251 - there is no loop to hold up

    def lock(self) -> _Lock:
        """Return a new lock."""
        return _Lock()

    def signal(self) -> _Signal:
        """Return a new signal."""
        return _Signal()

    async def close(self) -> None:
        """Close every connection."""
        with self._making:
            self._closed = True
            channels = list(self._channels.values())
            self._channels.clear()
        for channel, _ in channels:
            channel.close()

    def _stub(self, lane: Lane) -> upload_pb2_grpc.UploadServiceStub:
        with self._making:
            if self._closed:
                raise RuntimeError("The client is closed: make another one")
            if lane not in self._channels:
                channel = self._connect(lane)
                self._channels[lane] = channel, upload_pb2_grpc.UploadServiceStub(channel)
            return self._channels[lane][1]

    def _connect(self, lane: Lane) -> grpc.Channel:
        endpoint = self._endpoint
        options = channel_options(endpoint.target, lane, endpoint.options)
        if endpoint.credentials is None:
            return grpc.insecure_channel(endpoint.target, options)
        return grpc.secure_channel(endpoint.target, endpoint.credentials, options)
