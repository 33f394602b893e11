"""Decides which use case each RPC is: convert, call, convert. The same for every door.

Must not know how errors, limits and metrics are handled (``calls``) nor how anything is done (``service``).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from functools import partial
from typing import Final, TypeVar

from google.protobuf.internal.containers import RepeatedCompositeFieldContainer
from google.protobuf.message import Message

from upload.v1 import upload_pb2 as pb
from upload_server.access.quotas import Quotas
from upload_server.domain.caller import Caller
from upload_server.domain.errors import UploadError
from upload_server.domain.slices import in_slices
from upload_server.domain.states import Batch, File
from upload_server.doors import convert
from upload_server.doors.admission import Gate
from upload_server.doors.calls import Call, Calls, Context, StreamContext, abort, listing, unary
from upload_server.doors.convert import FileMessage
from upload_server.doors.mailbox import Mailbox
from upload_server.doors.rpc.upload_stream import REFUSED_SECONDS, UploadMessage, UploadStream, reader
from upload_server.ingest import Ingest
from upload_server.service import Uploads
from upload_server.store.values import Targets
from upload_server.watch import Bookmarked, Changed, Outlet, Progressed, WatchEvent

Row = TypeVar("Row")
M = TypeVar("M", bound=Message)

# Of a file in one message, as callers were told.
_MOST_DATA: Final = 256 * 1024
# Seconds between two slices of a page: a cancel needs several turns of the loop.
_BETWEEN_SLICES = 0.001


class UploadServicer:
    """upload.v1.UploadService, behind one door."""

    def __init__(
        self,
        uploads: Uploads,
        ingest: Ingest,
        calls: Calls,
        *,
        idle_seconds: float,
        least_bytes: int = 0,
        file_message: FileMessage = convert.file_to_proto,
        quotas: Quotas | None = None,
    ) -> None:
        self._quotas = quotas
        self.calls = calls
        self._file_message = file_message
        self._uploads = uploads
        self._ingest = ingest
        self._idle_seconds = idle_seconds
        self._least_bytes = least_bytes

    @unary(Gate.CHANGE)
    async def InitiateUpload(self, request: pb.InitiateUploadRequest, caller: Caller) -> pb.InitiateUploadResponse:
        """Announce one file."""
        spec = convert.file_spec(request)
        file = await self._uploads.initiate_upload(spec, request.request_id, caller)
        return pb.InitiateUploadResponse(file=self._file_message(file))

    @unary(Gate.CHANGE)
    async def InitiateBatch(self, request: pb.InitiateBatchRequest, caller: Caller) -> pb.InitiateBatchResponse:
        """Announce files that belong together."""
        files, spec_of = request.files, convert.file_spec
        batch, file_ids = await self._uploads.initiate_batch(files, spec_of, request.request_id, caller)
        return pb.InitiateBatchResponse(batch=convert.batch_to_proto(batch), file_ids=file_ids)

    @unary(Gate.CHANGE, waits_for_disk=True)
    async def PutFile(self, request: pb.PutFileRequest, caller: Caller) -> pb.File:
        """Take a file that comes whole."""
        spec = convert.file_spec(request)
        return self._file_message(await self._uploads.put_file(spec, request.data, request.request_id, caller))

    @unary(Gate.READ)
    async def GetFile(self, request: pb.GetFileRequest, caller: Caller) -> pb.File:
        """Return one file."""
        return self._file_message(await self._uploads.get_file(request.file_id, caller))

    @listing
    async def ListFiles(self, request: pb.ListFilesRequest, caller: Caller) -> pb.ListFilesResponse:
        """Return a page of files."""
        wanted = convert.listed_files(request)
        page = await self._uploads.list_files(wanted, request.order_by, request.page_size, request.page_token, caller)
        answer = pb.ListFilesResponse(next_page_token=page.next_page_token)
        await _fill(answer.files, page.rows, self._file_message)
        return answer

    @unary(Gate.READ)
    async def GetBatch(self, request: pb.GetBatchRequest, caller: Caller) -> pb.Batch:
        """Return one batch."""
        return convert.batch_to_proto(await self._uploads.get_batch(request.batch_id, caller))

    @listing
    async def ListBatches(self, request: pb.ListBatchesRequest, caller: Caller) -> pb.ListBatchesResponse:
        """Return a page of batches."""
        wanted = convert.listed_batches(request)
        page = await self._uploads.list_batches(wanted, request.order_by, request.page_size, request.page_token, caller)
        answer = pb.ListBatchesResponse(next_page_token=page.next_page_token)
        await _fill(answer.batches, page.rows, convert.batch_to_proto)
        return answer

    @unary(Gate.READ)
    async def GetStatistics(self, request: pb.GetStatisticsRequest, caller: Caller) -> pb.GetStatisticsResponse:
        """Count files and batches."""
        window, step = convert.seconds(request.window), convert.seconds(request.step)
        return convert.statistics_to_proto(await self._uploads.get_statistics(window, step, caller))

    @unary(Gate.READ)
    async def GetCaller(self, _request: pb.GetCallerRequest, caller: Caller) -> pb.GetCallerResponse:
        """Say who calls."""
        quotas = await self._quotas.used(caller.principal) if self._quotas is not None and caller.principal else {}
        return convert.caller_to_proto(caller, quotas)

    @unary(Gate.CANCEL)
    async def CancelFile(self, request: pb.CancelFileRequest, caller: Caller) -> pb.CancelFileResponse:
        """Cancel a file."""
        answer = await self._uploads.cancel_file(request.file_id, request.reason, request.request_id, caller)
        return convert.cancelled_file_to_proto(answer)

    @unary(Gate.CANCEL)
    async def CancelBatch(self, request: pb.CancelBatchRequest, caller: Caller) -> pb.CancelBatchResponse:
        """Cancel a batch and its files."""
        answer = await self._uploads.cancel_batch(request.batch_id, request.reason, request.request_id, caller)
        return convert.cancelled_batch_to_proto(answer)

    @listing
    async def ListAuditEvents(self, request: pb.ListAuditEventsRequest, caller: Caller) -> pb.ListAuditEventsResponse:
        """Return a page of the audit trail."""
        page = await self._uploads.list_audit_events(
            convert.trail(request), request.order_by, request.page_size, request.page_token, caller
        )
        answer = pb.ListAuditEventsResponse(next_page_token=page.next_page_token)
        await _fill(answer.events, page.rows, convert.audit_event_to_proto)
        return answer

    async def UploadFile(
        self,
        requests: AsyncIterator[UploadMessage],  # noqa: ARG002 - the mailbox reads the context
        context: StreamContext,
    ) -> AsyncIterator[pb.UploadFileResponse]:
        """Take the bytes of one file."""
        mailbox: Mailbox[pb.UploadFileRequest] = Mailbox(
            reader(context), self._ingest.memory, idle_seconds=self._idle_seconds, least_bytes=self._least_bytes
        )
        async with Call(self.calls, "UploadFile", partial(abort, context), context) as call, mailbox:
            try:
                caller = await call.admit(Gate.UPLOAD)
            except UploadError:
                await mailbox.discard(REFUSED_SECONDS)  # a sender that is still writing would not hear the refusal
                raise
            stream = UploadStream(self._ingest, mailbox, caller, self.calls.admission.turns, self._file_message)
            async for response in stream.responses():
                yield response

    @unary(Gate.CHANGE)
    async def DeleteContent(self, request: pb.DeleteContentRequest, caller: Caller) -> pb.File:
        """Let go of the bytes of a completed file."""
        answer = await self._uploads.delete_content(request.file_id, request.reason, request.request_id, caller)
        return self._file_message(answer)

    async def download(self, request: pb.DownloadFileRequest, caller: Caller) -> AsyncGenerator[bytes, None]:
        """Give the messages of a download, serialised."""
        with self.calls.limit():
            content = await self._uploads.get_content(request.file_id, caller)
        part = content.part(request.offset, request.length)
        yield pb.DownloadFileResponse(file=self._file_message(content.file)).SerializeToString()
        async with aclosing(content.ahead(part.start, part.stop)) as blocks:
            async for block in blocks:
                view = memoryview(block)
                for first in range(0, len(view), _MOST_DATA):
                    yield _data_message(view[first : first + _MOST_DATA])

    async def WatchStatus(
        self, request: pb.WatchStatusRequest, context: Context
    ) -> AsyncIterator[pb.WatchStatusResponse]:
        """Stream the changes of what is watched."""
        async with (
            Call(self.calls, "WatchStatus", partial(abort, context), context) as call,
            call.turn(await call.identify()) as turn,
        ):
            caller = await call.admit(Gate.WATCH)
            async with aclosing(self.watch(request, caller)) as events:
                async for event in events:
                    # The store was read; what follows may take for ever.
                    turn.give()
                    yield self.watch_response(event)

    def watch(
        self, request: pb.WatchStatusRequest, caller: Caller, outlet: Outlet | None = None
    ) -> AsyncGenerator[WatchEvent, None]:
        """Return the events of a watch, not yet converted, but for those that go out through ``outlet``."""
        targets = Targets(
            file_ids=frozenset(request.file_ids),
            batch_ids=frozenset(request.batch_ids),
            include_batch_files=request.include_batch_files,
            all=request.all,
        )
        seconds = convert.seconds(request.progress_interval)
        return self._uploads.watch(
            targets,
            request.resume_token,
            seconds,
            caller,
            until_final=request.until_final,
            owner=request.owner,
            outlet=outlet,
        )

    def watch_response(self, event: WatchEvent) -> pb.WatchStatusResponse:
        """Return ``event`` as its message; a change is converted once, however many watch it."""
        match event:
            case Changed(change=change, token=token):
                message = event.wire.get("message")
                if not isinstance(message, pb.WatchStatusResponse):
                    message = self._changed(change.record, token)
                    event.wire["message"] = message
                return message
            case Progressed(file_id=file_id, bytes_received=bytes_received, token=token):
                progress = pb.Progress(file_id=file_id, bytes_received=bytes_received)
                return pb.WatchStatusResponse(progress=progress, resume_token=token)
            case Bookmarked(token=token, resynced=resynced):
                return pb.WatchStatusResponse(bookmark=pb.Bookmark(resynced=resynced), resume_token=token)

    def watch_bytes(self, event: WatchEvent) -> bytes:
        """Return ``event`` serialised; a change is serialised once, however many watch it."""
        if not isinstance(event, Changed):
            return self.watch_response(event).SerializeToString()
        serialised = event.wire.get("bytes")
        if not isinstance(serialised, bytes):
            serialised = self.watch_response(event).SerializeToString()
            event.wire["bytes"] = serialised
        return serialised

    def _changed(self, record: File | Batch, token: str) -> pb.WatchStatusResponse:
        if isinstance(record, File):
            return pb.WatchStatusResponse(file=self._file_message(record), resume_token=token)
        return pb.WatchStatusResponse(batch=convert.batch_to_proto(record), resume_token=token)


def _data_message(data: memoryview) -> bytes:
    """Serialise bytes of a file: protobuf copies them twice, to where the kernel has to clear memory each time."""
    head, left = bytearray([pb.DownloadFileResponse.DATA_FIELD_NUMBER << 3 | 2]), len(data)
    while left > 0x7F:  # noqa: PLR2004 - a varint: seven bits a byte, and one that says that more follows
        head.append(left & 0x7F | 0x80)
        left >>= 7
    head.append(left)
    return b"".join((head, data))


async def _fill(
    field: RepeatedCompositeFieldContainer[M], rows: Sequence[Row], convert_one: Callable[[Row], M]
) -> None:
    """Put the rows of a page into an answer, a slice a turn of the loop, with time for calls between."""
    async for some in in_slices(rows, _BETWEEN_SLICES):
        field.extend(map(convert_one, some))
