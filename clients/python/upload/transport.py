"""Decides what the client needs of the world: calls, time, threads, locks. One protocol, two drivers.

Every operation of this client is one coroutine over ``Transport``. ``aio.py`` drives it on an asyncio
loop; ``blocking.py`` drives the very same coroutines without any loop, over gRPC's synchronous stubs: there no await
ever suspends. So there are no twin copies, and no second event loop, which grpcio does not bear in one process.

Operations therefore await only each other and what is here, never asyncio itself.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Generic, ParamSpec, Protocol, TypeVar

import grpc

from upload.channel import Lane, Option
from upload.tokens import TokenSource
from upload.v1 import upload_pb2 as pb

Request = TypeVar("Request")
Response = TypeVar("Response")
T = TypeVar("T")
P = ParamSpec("P")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the server is and how to speak to it. Without ``credentials`` the connection is not encrypted."""

    target: str
    credentials: grpc.ChannelCredentials | None = None
    metadata: Sequence[tuple[str, str]] = ()
    options: Sequence[Option] = ()
    token: TokenSource | None = None


@dataclass(frozen=True, slots=True)
class Method(Generic[Request, Response]):
    """A method of the service that takes one request, and the connection it goes over."""

    name: str
    lane: Lane = Lane.MAIN


GET_FILE: Method[pb.GetFileRequest, pb.File] = Method("GetFile")
GET_BATCH: Method[pb.GetBatchRequest, pb.Batch] = Method("GetBatch")
LIST_FILES: Method[pb.ListFilesRequest, pb.ListFilesResponse] = Method("ListFiles")
LIST_BATCHES: Method[pb.ListBatchesRequest, pb.ListBatchesResponse] = Method("ListBatches")
GET_STATISTICS: Method[pb.GetStatisticsRequest, pb.GetStatisticsResponse] = Method("GetStatistics")
GET_CALLER: Method[pb.GetCallerRequest, pb.GetCallerResponse] = Method("GetCaller")
LIST_AUDIT_EVENTS: Method[pb.ListAuditEventsRequest, pb.ListAuditEventsResponse] = Method("ListAuditEvents")
INITIATE_UPLOAD: Method[pb.InitiateUploadRequest, pb.InitiateUploadResponse] = Method("InitiateUpload")
PUT_FILE: Method[pb.PutFileRequest, pb.File] = Method("PutFile")
INITIATE_BATCH: Method[pb.InitiateBatchRequest, pb.InitiateBatchResponse] = Method("InitiateBatch")
WATCH_STATUS: Method[pb.WatchStatusRequest, pb.WatchStatusResponse] = Method("WatchStatus", Lane.WATCH)
DOWNLOAD_FILE: Method[pb.DownloadFileRequest, pb.DownloadFileResponse] = Method("DownloadFile")
DELETE_CONTENT: Method[pb.DeleteContentRequest, pb.File] = Method("DeleteContent")
CANCEL_FILE: Method[pb.CancelFileRequest, pb.CancelFileResponse] = Method("CancelFile", Lane.CANCEL)
CANCEL_BATCH: Method[pb.CancelBatchRequest, pb.CancelBatchResponse] = Method("CancelBatch", Lane.CANCEL)


class Lock(AbstractAsyncContextManager[Any], Protocol):
    """Lets one in at a time."""

    def locked(self) -> bool:
        """Whether somebody is in."""


class Signal(Protocol):
    """Something that happens once."""

    def set(self) -> None:
        """Set it."""

    async def wait(self, seconds: float) -> bool:
        """Wait for it, at most so long; returns whether it happened."""


class Transport(Protocol):
    """Calls, time, threads and locks. Calls raise ``UploadServiceError`` only."""

    async def unary(self, method: Method[Request, Response], request: Request, seconds: float) -> Response:
        """Make one unary call with a deadline of ``seconds``."""

    def upload(self, requests: AsyncIterator[pb.UploadFileRequest]) -> AsyncGenerator[pb.UploadFileResponse, None]:
        """Open an upload stream; closing the generator ends it. ``requests`` must not raise."""

    def stream(self, method: Method[Request, Response], request: Request) -> AsyncGenerator[Response, None]:
        """Open a stream of the server's; closing the generator ends it."""

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run work that blocks on a disk or burns CPU."""

    async def each(self, work: Callable[[T], Awaitable[None]], items: Iterable[T], at_once: int) -> None:
        """Do the work of each item, of some of them at the same time."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""

    def lock(self) -> Lock:
        """Return a new lock."""

    def signal(self) -> Signal:
        """Return a new signal; the reader of a stream sets it, the writer awaits it."""

    async def close(self) -> None:
        """Close every connection."""
