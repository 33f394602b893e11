"""Decides the order of messages on an UploadFile stream, and what its sender hears.

Must not know how bytes are stored. The end of the stream never completes a file: a broken client looks like one.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import grpc
from google.protobuf.message import DecodeError

from upload.v1 import upload_pb2 as pb
from upload_server.domain.caller import Caller
from upload_server.domain.errors import InvalidField, Overloaded, UnexpectedMessage, UploadCancelled, UploadError
from upload_server.domain.fields import MAX_PUT_BYTES, Rules
from upload_server.domain.states import File
from upload_server.doors.calls import StreamContext
from upload_server.doors.convert import FileMessage, file_to_proto, stopped_to_proto
from upload_server.doors.mailbox import End, Mailbox, take_bytes
from upload_server.doors.turns import Turns
from upload_server.ingest import Ingest, Upload

# Seconds that the server reads on before a refusal: enough for what is under way, little for a caller that waits.
REFUSED_SECONDS = 0.1
# Seconds that the server reads on after `stopped`, so that a sender that is busy writing can hear it.
_HEAR_SECONDS = 1.0

# Who sends the bytes of a file with its header sends its commit with them; who waits for an answer waits so long more.
_WHOLE_SECONDS = 0.02

_DATA_TAG = 0x12
_VARINT_MORE = 0x80


UploadMessage = pb.UploadFileRequest | memoryview


def decode_upload_request(raw: bytes) -> UploadMessage:
    """Decode an UploadFileRequest; ``data`` that stands alone is not copied out of it.

    Bytes that do not decode become an empty message, which is refused: for an exception grpcio would end the stream, as
    a sender does that resumes later.
    """
    if raw and raw[0] == _DATA_TAG:
        length, start, shift = 0, 1, 0
        for byte in raw[1:6]:
            length |= (byte & ~_VARINT_MORE) << shift
            start, shift = start + 1, shift + 7
            if not byte & _VARINT_MORE:
                break
        if start + length == len(raw):
            return memoryview(raw)[start:]
    try:
        message = pb.UploadFileRequest.FromString(raw)
    except DecodeError:
        return pb.UploadFileRequest()
    return memoryview(message.data) if message.WhichOneof("message") == "data" else message


def reader(context: StreamContext) -> Callable[[], Awaitable[UploadMessage | End]]:
    """Return how a mailbox reads the stream. Its end is the sender's, or its loss: grpcio cannot tell them apart."""

    async def read() -> UploadMessage | End:
        message = await context.read()
        return End() if message is grpc.aio.EOF else message

    return read


class UploadStream:
    """The course of one UploadFile call."""

    def __init__(
        self,
        ingest: Ingest,
        mailbox: Mailbox[pb.UploadFileRequest],
        caller: Caller,
        turns: Turns,
        file_message: FileMessage = file_to_proto,
    ) -> None:
        """``turns`` are taken for what is written before bytes flow, and for a file that comes whole."""
        self._ingest = ingest
        self._mailbox = mailbox
        self._caller = caller
        self._file_message = file_message
        self._turns = turns
        # Durable bytes that the sender knows of.
        self._told = -1
        # Once it is open.
        self._upload: Upload | None = None

    async def responses(self) -> AsyncIterator[pb.UploadFileResponse]:
        """Yield what the sender hears; raises what the call ends with."""
        try:
            async for response in self._course():
                yield response
        except UploadCancelled as error:
            # Before anything is waited for: the disk may be busy.
            yield pb.UploadFileResponse(stopped=stopped_to_proto(error.file))
            await self._mailbox.discard(_HEAR_SECONDS)
            raise
        except UploadError:
            await self._close()
            await self._mailbox.discard(REFUSED_SECONDS)
            raise
        finally:
            await self._close()

    async def _course(self) -> AsyncIterator[pb.UploadFileResponse]:
        header = await self._header()
        if header.offset == 0 and (completed := await self._put(header.file_id)) is not None:
            yield pb.UploadFileResponse(completed=self._file_message(completed))
            return
        async with self._turns.turn(self._caller.principal, waits_for_disk=True):
            self._upload = upload = await self._ingest.open(header.file_id, header.offset, self._caller)
        self._mailbox.follow(upload)
        yield self._progress(upload)
        while (message := await take_bytes(upload, self._mailbox, told=self._told)) is None:
            yield self._progress(upload)
        if isinstance(message, End):
            await upload.close()
            if upload.durable > self._told:
                yield self._progress(upload)
            return
        file = await upload.commit(_commit(message).sha256, self._caller)
        yield pb.UploadFileResponse(completed=self._file_message(file))

    async def _put(self, file_id: str) -> File | None:
        """Complete a small file whose bytes and commit come with its header; else None, and nothing has happened."""
        mailbox = self._mailbox
        pieces, commit = await mailbox.take_whole(MAX_PUT_BYTES, _WHOLE_SECONDS)
        others = [commit] if isinstance(commit, pb.UploadFileRequest) else []
        try:
            if isinstance(commit, pb.UploadFileRequest) and commit.WhichOneof("message") == "commit":
                # What is wrong with it, the stream tells.
                with contextlib.suppress(InvalidField, Overloaded):
                    sha256 = _commit(commit).sha256.lower()
                    async with self._turns.turn(self._caller.principal, waits_for_disk=True):
                        file = await self._ingest.put_announced(file_id, b"".join(pieces), sha256, self._caller)
                    if file is not None:
                        return file
            mailbox.put_back([*pieces, *others])
            pieces = []
            return None
        finally:
            mailbox.let_go(pieces)

    async def _close(self) -> None:
        """Let go of the file, if it was opened; waits for the disk."""
        if self._upload is not None:
            await self._upload.close()

    async def _header(self) -> pb.UploadHeader:
        while (message := self._mailbox.take()) is None:
            if self._mailbox.end is not None:
                raise UnexpectedMessage("The stream ended before its header")
            await self._mailbox.wait_for_sender("")
        if not isinstance(message, pb.UploadFileRequest) or message.WhichOneof("message") != "header":
            raise UnexpectedMessage("The first message must be a header")
        rules = Rules()
        rules.identifier("header.file_id", message.header.file_id)
        if message.header.offset < 0:
            rules.refuse("header.offset", "must not be negative")
        rules.check()
        return message.header

    def _progress(self, upload: Upload) -> pb.UploadFileResponse:
        self._told = upload.durable
        return pb.UploadFileResponse(progress=pb.UploadProgress(bytes_received=self._told))


def _commit(message: pb.UploadFileRequest) -> pb.UploadCommit:
    if message.WhichOneof("message") != "commit":
        raise UnexpectedMessage("After the header only data and one commit may come")
    rules = Rules()
    rules.sha256("commit.sha256", message.commit.sha256)
    rules.check()
    return message.commit
