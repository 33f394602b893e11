"""A real server process as a System; unary calls go through gRPC and HTTP in turn."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
from google.protobuf.json_format import MessageToDict
from google.rpc import error_details_pb2, status_pb2

from robustness.prove.model import Refused
from robustness.prove.systems import Views, content, digest
from robustness.prove.views import BatchView, EventView, FileView, micros, of_json
from support.doors import GrpcDoor, HttpDoor, Json, Refusal
from support.process import ServerProcess
from upload.v1 import upload_pb2 as pb
from upload.v1 import upload_pb2_grpc


@dataclass
class ServerStream:
    """An open UploadFile call."""

    call: Any
    size: int
    sent: int


class ServerSystem:
    """A server process; unary calls go through gRPC and HTTP in turn."""

    can_expire = False

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._server: ServerProcess | None = None
        self._turn = 0

    async def _started(self) -> ServerProcess:
        if self._server is None:
            self._server = await asyncio.to_thread(ServerProcess, self._folder / "data", ("--drain-grace", "0"))
            self._channel = grpc.aio.insecure_channel(
                self._server.target, options=[("grpc.use_local_subchannel_pool", 1)]
            )
            self._client = httpx.AsyncClient(base_url=self._server.url, timeout=20)
            self._doors = (GrpcDoor(self._channel), HttpDoor(self._client))
            self.stub: Any = upload_pb2_grpc.UploadServiceStub(self._channel)
        return self._server

    async def _call(self, method: str, **request: Any) -> Json:
        await self._started()
        self._turn += 1
        try:
            return await self._doors[self._turn % 2].call(method, **request)
        except Refusal as error:
            raise Refused(error.reason, **error.metadata) from None

    async def initiate(self, size: int, request_id: str) -> FileView:
        answer = await self._call("InitiateUpload", filename="a", size_bytes=size, request_id=request_id)
        return of_json(FileView, answer["file"])

    async def initiate_batch(self, sizes: Sequence[int], request_id: str) -> tuple[BatchView, list[str]]:
        specs = [{"filename": "a", "size_bytes": size} for size in sizes]
        answer = await self._call("InitiateBatch", files=specs, request_id=request_id)
        return of_json(BatchView, answer["batch"]), list(answer["file_ids"])

    async def open(self, file: FileView, offset: int) -> ServerStream:
        await self._started()
        call = self.stub.UploadFile(timeout=30)
        await call.write(pb.UploadFileRequest(header=pb.UploadHeader(file_id=file.file_id, offset=offset)))
        stream = ServerStream(call, file.size_bytes, offset)
        first = await self._hear(stream)
        assert first is not None
        assert first.progress.bytes_received == offset
        return stream

    async def _hear(self, stream: ServerStream) -> pb.UploadFileResponse | None:
        """Return the next message, None at the end; raises what the stream ends with."""
        try:
            message: Any = await stream.call.read()
        except grpc.aio.AioRpcError as error:
            raise _refused_rpc(error) from None
        if message == grpc.aio.EOF:
            code = await stream.call.code()
            if code is grpc.StatusCode.OK:
                return None
            raise refusal_of_call(code, dict(await stream.call.trailing_metadata() or ()))
        assert isinstance(message, pb.UploadFileResponse)
        return message

    async def _last(self, stream: ServerStream) -> pb.UploadFileResponse | None:
        last = None
        while (message := await self._hear(stream)) is not None:
            if message.WhichOneof("message") != "stopped":
                last = message
        return last

    async def send(self, stream: ServerStream, count: int) -> None:
        data = content(stream.size)[stream.sent : stream.sent + count]
        stream.sent += count
        await _quietly(stream.call.write(pb.UploadFileRequest(data=data)))

    async def leave(self, stream: ServerStream) -> None:
        await _quietly(stream.call.done_writing())
        await self._last(stream)

    async def commit(self, stream: ServerStream, *, matches: bool) -> FileView:
        sha256 = digest(stream.size) if matches else "0" * 64
        await _quietly(stream.call.write(pb.UploadFileRequest(commit=pb.UploadCommit(sha256=sha256))))
        last = await self._last(stream)
        assert last is not None
        assert last.WhichOneof("message") == "completed"
        return await self.file(last.completed.file_id)

    async def cancel(self, file_id: str, reason: str, request_id: str) -> tuple[str, int]:
        answer = await self._call("CancelFile", file_id=file_id, reason=reason, request_id=request_id)
        return answer["filename"], micros(answer["cancelled_at"])

    async def cancel_batch(self, batch_id: str, reason: str, request_id: str) -> tuple[int, int, int]:
        answer = await self._call("CancelBatch", batch_id=batch_id, reason=reason, request_id=request_id)
        return answer["cancelled_files_count"], answer["total_files_in_batch"], micros(answer["cancelled_at"])

    async def expire(self, before: int, open_files: frozenset[str]) -> set[str]:
        raise NotImplementedError

    async def file(self, file_id: str) -> FileView:
        return of_json(FileView, await self._call("GetFile", file_id=file_id))

    async def batch(self, batch_id: str) -> BatchView:
        return of_json(BatchView, await self._call("GetBatch", batch_id=batch_id))

    async def files_of(self, batch_id: str) -> list[FileView]:
        page = await self._call("ListFiles", batch_id=batch_id, page_size=1000)
        return [of_json(FileView, file) for file in page["files"]]

    async def listed(self, status: str) -> list[str]:
        page = await self._call("ListFiles", status=f"UPLOAD_STATUS_{status.upper()}", page_size=1000)
        assert page["next_page_token"] == ""
        return [file["file_id"] for file in page["files"]]

    async def audit(self) -> list[EventView]:
        found: list[EventView] = []
        token = ""
        while True:
            page = await self._call("ListAuditEvents", page_size=1000, page_token=token)
            found += [of_json(EventView, event) for event in page["events"]]
            token = page["next_page_token"]
            if not token:
                return found

    async def changes(self, token: str) -> tuple[Views, str]:
        await self._started()
        found: Views = {}
        call = self.stub.WatchStatus(pb.WatchStatusRequest(all=True, resume_token=token), timeout=20)
        async for event in call:
            kind = event.WhichOneof("event")
            if kind == "bookmark":
                assert not event.bookmark.resynced
                call.cancel()
                return found, event.resume_token
            view = _view(event)
            key = view.file_id if isinstance(view, FileView) else view.batch_id
            assert key not in found, "a target comes once before the bookmark"
            found[key] = view
        raise AssertionError("the watch ended before its bookmark")

    async def restart(self, *, kill: bool) -> None:
        if self._server is None:
            return
        server, self._server = self._server, None
        await asyncio.to_thread(server.kill if kill else server.terminate)
        await self._client.aclose()
        await self._channel.close()

    async def stop(self) -> None:
        await self.restart(kill=True)


def _view(event: Any) -> FileView | BatchView:
    if event.WhichOneof("event") == "file":
        return of_json(FileView, as_json(event.file))
    return of_json(BatchView, as_json(event.batch))


def as_json(message: Any) -> Json:
    """Proto JSON with proto names and defaults."""
    return MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)


async def _quietly(awaitable: Any) -> None:
    """A stream that the server has ended takes no more: what it is asked next tells why."""
    with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
        await awaitable


def _refused_rpc(error: grpc.aio.AioRpcError) -> Refused:
    return refusal_of_call(error.code(), dict(error.trailing_metadata() or ()))


def refusal_of_call(code: grpc.StatusCode, trailers: Mapping[str, Any]) -> Refused:
    raw = trailers.get("grpc-status-details-bin")
    if raw is None:
        return Refused(f"GRPC_{code.name}")
    info = error_details_pb2.ErrorInfo()
    for detail in status_pb2.Status.FromString(raw).details:
        detail.Unpack(info)
    return Refused(info.reason, **dict(info.metadata))
