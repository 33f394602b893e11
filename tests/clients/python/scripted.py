# ruff: noqa: N802 - a servicer's methods carry the RPCs' names
"""A small real gRPC server for what the service itself cannot be made to do: broken streams, lost answers, odd errors.

It keeps just enough state for a client to be right or wrong about it. Tests script its faults, one per call.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc import StatusCode, aio

from upload.v1 import upload_pb2 as pb
from upload.v1 import upload_pb2_grpc

Context = Any
NOW = datetime(2024, 1, 1, 12, tzinfo=UTC)


@dataclass(frozen=True)
class Refusal(Exception):
    """An error as the service says it."""

    code: StatusCode
    reason: str = ""
    message: str = "scripted"
    metadata: Mapping[str, str] = field(default_factory=dict)
    retry_after: float = 0.0

    async def abort(self, context: Context) -> None:
        status = status_pb2.Status(code=self.code.value[0], message=self.message)
        if self.reason:
            info = error_details_pb2.ErrorInfo(reason=self.reason, domain="upload.v1", metadata=self.metadata)
            _pack(status, info)
        if self.retry_after:
            delay = duration_pb2.Duration()
            delay.FromMilliseconds(round(self.retry_after * 1000))
            _pack(status, error_details_pb2.RetryInfo(retry_delay=delay))
        trailers = (("grpc-status-details-bin", status.SerializeToString()),) if status.details else ()
        await context.abort(self.code, self.message, trailers)


def _pack(status: status_pb2.Status, detail: Any) -> None:
    packed = any_pb2.Any()
    packed.Pack(detail)
    status.details.append(packed)


@dataclass
class StreamFault:
    """Breaks one upload stream once it has taken ``after`` bytes; ``durable`` of them were recorded.

    0 refuses it when it opens.
    """

    after: int
    refusal: Refusal
    durable: int | None = None
    # The commit was taken and carried out, but its answer is lost.
    after_commit: bool = False


class Scripted(upload_pb2_grpc.UploadServiceServicer):
    """Files in memory; ``faults[method]`` are raised first, one per call."""

    def __init__(self) -> None:
        self.files: dict[str, pb.File] = {}
        self.batches: dict[str, pb.Batch] = {}
        self.data: dict[str, bytearray] = defaultdict(bytearray)
        self.calls: dict[str, list[Any]] = defaultdict(list)
        self.faults: dict[str, list[Refusal]] = defaultdict(list)
        # Carried out first, then refused: an answer that got lost.
        self.lost: dict[str, list[Refusal]] = defaultdict(list)
        self.stream_faults: list[StreamFault] = []
        self.watches: list[Callable[[pb.WatchStatusRequest], AsyncIterator[pb.WatchStatusResponse]]] = []
        # Set by a test to cancel whatever is uploading, as another caller would.
        self.cancel_now = asyncio.Event()
        self.answers: dict[str, Any] = {}
        # What happens to a file just before it is shown.
        self.on_get: Callable[[pb.File], None] = lambda _: None
        # What came after `stopped`.
        self.late_bytes = 0

    def add(self, file_id: str = "f-1", size: int = 0, **values: Any) -> pb.File:
        fields = {"filename": "a.bin", "status": pb.UPLOAD_STATUS_PENDING, "revision": 1, **values}
        file = pb.File(file_id=file_id, size_bytes=size, **fields)
        file.created_at.FromDatetime(NOW)
        self.files[file_id] = file
        return file

    async def _unary(self, method: str, request: Any, context: Context, answer: Callable[[], Any]) -> Any:
        self.calls[method].append(request)
        try:
            if self.faults[method]:
                raise self.faults[method].pop(0)
            result = answer()
            if self.lost[method]:
                raise self.lost[method].pop(0)
        except Refusal as refusal:
            await refusal.abort(context)
        else:
            return result

    def _file(self, file_id: str) -> pb.File:
        if file_id not in self.files:
            raise Refusal(StatusCode.NOT_FOUND, "FILE_NOT_FOUND", "No file has this id", {"file_id": file_id})
        return self.files[file_id]

    async def GetFile(self, request: pb.GetFileRequest, context: Context) -> Any:
        def answer() -> pb.File:
            file = self._file(request.file_id)
            self.on_get(file)
            return file

        return await self._unary("GetFile", request, context, answer)

    async def GetBatch(self, request: pb.GetBatchRequest, context: Context) -> Any:
        return await self._unary("GetBatch", request, context, lambda: self.batches[request.batch_id])

    async def InitiateUpload(self, request: pb.InitiateUploadRequest, context: Context) -> Any:
        def answer() -> pb.InitiateUploadResponse:
            known = self.answers.get(request.request_id)
            file_id = known or f"f-{len(self.files) + 1}"
            if known is None:
                self.add(file_id, request.size_bytes, filename=request.filename)
                self.answers[request.request_id] = file_id
            return pb.InitiateUploadResponse(file=self.files[file_id])

        return await self._unary("InitiateUpload", request, context, answer)

    async def PutFile(self, request: pb.PutFileRequest, context: Context) -> Any:
        def answer() -> pb.File:
            known = self.answers.get(request.request_id)
            file_id = known or f"f-{len(self.files) + 1}"
            if known is None:
                values = {"filename": request.filename, "status": pb.UPLOAD_STATUS_COMPLETED, "revision": 3}
                self.add(file_id, request.size_bytes, bytes_received=request.size_bytes, **values)
                self.data[file_id] += request.data
                self.answers[request.request_id] = file_id
            return self.files[file_id]

        return await self._unary("PutFile", request, context, answer)

    async def DeleteContent(self, request: pb.DeleteContentRequest, context: Context) -> Any:
        def answer() -> pb.File:
            file = self._file(request.file_id)
            file.content_deleted_by = "user"
            return file

        return await self._unary("DeleteContent", request, context, answer)

    async def CancelFile(self, request: pb.CancelFileRequest, context: Context) -> Any:
        def answer() -> pb.CancelFileResponse:
            if request.request_id in self.answers:
                known: pb.CancelFileResponse = self.answers[request.request_id]
                return known
            file = self._file(request.file_id)
            if file.status in {3, 4, 5}:
                word = {3: "completed", 4: "failed", 5: "cancelled"}[file.status]
                raise Refusal(
                    StatusCode.FAILED_PRECONDITION,
                    "FILE_NOT_CANCELLABLE",
                    f"The file is {word} and can no longer be cancelled",
                    {
                        "status": word,
                        "revision": str(file.revision),
                        "file_id": file.file_id,
                        "cancelled_by": file.cancelled_by,
                    },
                )
            self.mark_cancelled(file, request.reason)
            response = pb.CancelFileResponse(
                message="Upload cancelled successfully", file_id=file.file_id, filename=file.filename
            )
            response.cancelled_at.CopyFrom(file.cancelled_at)
            self.answers[request.request_id] = response
            return response

        return await self._unary("CancelFile", request, context, answer)

    def mark_cancelled(self, file: pb.File, reason: str = "", by: str = "user") -> None:
        file.status, file.cancelled_by, file.cancel_reason = pb.UPLOAD_STATUS_CANCELLED, by, reason
        file.cancelled_at.FromDatetime(NOW)
        file.revision += 1

    async def UploadFile(
        self, requests: AsyncIterator[pb.UploadFileRequest], context: Context
    ) -> AsyncIterator[pb.UploadFileResponse]:
        try:
            async for response in self._take(requests):
                yield response
        except Refusal as refusal:
            await refusal.abort(context)

    async def _take(self, requests: AsyncIterator[pb.UploadFileRequest]) -> AsyncIterator[pb.UploadFileResponse]:
        header = (await anext(aiter(requests))).header
        self.calls["UploadFile"].append(header)
        file = self._file(header.file_id)
        if header.offset != file.bytes_received:
            raise Refusal(StatusCode.FAILED_PRECONDITION, "OFFSET_MISMATCH")
        fault = self.stream_faults.pop(0) if self.stream_faults else None
        if fault is not None and fault.after == 0 and not fault.after_commit:
            raise fault.refusal
        file.status, data = pb.UPLOAD_STATUS_UPLOADING, self.data[file.file_id]
        del data[file.bytes_received :]
        yield _progress(file.bytes_received)
        async for request in requests:
            if request.HasField("commit"):
                self.calls["commit"].append(request.commit)
                file.status, file.bytes_received = pb.UPLOAD_STATUS_COMPLETED, len(data)
                if fault is not None and fault.after_commit:
                    raise fault.refusal
                yield pb.UploadFileResponse(completed=file)
                return
            data += request.data
            if fault is not None and len(data) >= fault.after and not fault.after_commit:
                file.bytes_received = _durable(len(data), fault)
                raise fault.refusal
            if self.cancel_now.is_set():
                self.mark_cancelled(file, "wrong one", by="user:ann")
                stopped = pb.UploadStopped(
                    status=file.status, cancelled_by=file.cancelled_by, cancel_reason=file.cancel_reason
                )
                stopped.cancelled_at.CopyFrom(file.cancelled_at)
                yield pb.UploadFileResponse(stopped=stopped)
                async for late in requests:
                    self.late_bytes += len(late.data)
                raise Refusal(StatusCode.ABORTED, "UPLOAD_CANCELLED")
            file.bytes_received = _durable(len(data), fault)
            yield _progress(file.bytes_received)
        # The end without a commit: what came is durable, nothing is completed.
        file.bytes_received = len(data)

    async def WatchStatus(
        self, request: pb.WatchStatusRequest, context: Context
    ) -> AsyncIterator[pb.WatchStatusResponse]:
        copy = pb.WatchStatusRequest()
        copy.CopyFrom(request)
        self.calls["WatchStatus"].append(copy)
        try:
            async for event in self.watches.pop(0)(request):
                yield event
        except Refusal as refusal:
            await refusal.abort(context)

    async def DownloadFile(
        self, request: pb.DownloadFileRequest, context: Context
    ) -> AsyncIterator[pb.DownloadFileResponse]:
        try:
            yield pb.DownloadFileResponse(file=self._file(request.file_id))
            yield pb.DownloadFileResponse(data=bytes(self.data[request.file_id][request.offset :]))
        except Refusal as refusal:
            await refusal.abort(context)

    async def InitiateBatch(self, request: pb.InitiateBatchRequest, context: Context) -> Any:
        raise NotImplementedError

    async def CancelBatch(self, request: pb.CancelBatchRequest, context: Context) -> Any:
        raise NotImplementedError

    async def ListAuditEvents(self, request: pb.ListAuditEventsRequest, context: Context) -> Any:
        raise NotImplementedError

    async def ListBatches(self, request: pb.ListBatchesRequest, context: Context) -> Any:
        raise NotImplementedError

    async def GetStatistics(self, request: pb.GetStatisticsRequest, context: Context) -> Any:
        raise NotImplementedError

    async def GetCaller(self, request: pb.GetCallerRequest, context: Context) -> Any:
        raise NotImplementedError

    async def ListFiles(self, request: pb.ListFilesRequest, context: Context) -> Any:
        def answer() -> pb.ListFilesResponse:
            # Two a page, whatever was asked for: the token is the index.
            start = int(request.page_token or 0)
            files = list(self.files.values())
            token = str(start + 2) if start + 2 < len(files) else ""
            return pb.ListFilesResponse(files=files[start : start + 2], next_page_token=token)

        return await self._unary("ListFiles", request, context, answer)


def _durable(received: int, fault: StreamFault | None) -> int:
    return received if fault is None or fault.durable is None else min(received, fault.durable)


def _progress(count: int) -> pb.UploadFileResponse:
    return pb.UploadFileResponse(progress=pb.UploadProgress(bytes_received=count))


@dataclass(frozen=True)
class Running:
    """A scripted server that listens."""

    service: Scripted
    port: int
    stop: Callable[[], Awaitable[None]]

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.port}"


async def start(port: int = 0, service: Scripted | None = None) -> Running:
    """Serve on a free loopback port."""
    service = service or Scripted()
    server = aio.server(options=[("grpc.so_reuseport", 0)])
    upload_pb2_grpc.add_UploadServiceServicer_to_server(service, server)
    bound = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()

    async def stop() -> None:
        await server.stop(0)

    return Running(service, bound, stop)


BROKEN = Refusal(StatusCode.UNAVAILABLE, message="connection reset")
INTERNAL = Refusal(StatusCode.INTERNAL, message="Internal error from Core")
UNKNOWN_OUTCOME = Refusal(StatusCode.INTERNAL, "OUTCOME_UNKNOWN", "It is not known")
