"""Decides the order of messages on an UploadFile stream, and what its sender hears.

Must not know how bytes are stored. The end of the stream never completes a file: a broken client looks like one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from upload.v1 import upload_pb2 as pb
from upload_server.domain.errors import (
    FieldViolation,
    InvalidField,
    UnexpectedMessage,
    UploadCancelled,
    UploadError,
    UploadIdle,
)
from upload_server.domain.fields import Rules
from upload_server.domain.states import Caller
from upload_server.doors.convert import file_to_proto, stopped_to_proto
from upload_server.doors.rpc.inbox import Inbox
from upload_server.ingest import Ingest, Upload

MAX_DATA_BYTES = 1024 * 1024
# How long the server reads on after `stopped`, so that a sender that is busy writing can hear it.
_HEAR_SECONDS = 1.0

_DATA_TAG = 0x12
_VARINT_MORE = 0x80


@dataclass(frozen=True, slots=True)
class Data:
    """The bytes of a data message, not copied out of it."""

    view: memoryview


UploadMessage = pb.UploadFileRequest | Data


def decode_upload_request(raw: bytes) -> UploadMessage:
    """Decode an UploadFileRequest; one that holds nothing but ``data`` is not copied into a message first.

    What cannot be decoded becomes an empty message, which is refused. For an exception grpcio would end the stream, and
    that is what a sender does who wants to resume later.
    """
    if raw and raw[0] == _DATA_TAG:
        length, start, shift = 0, 1, 0
        for byte in raw[1:6]:
            length |= (byte & ~_VARINT_MORE) << shift
            start, shift = start + 1, shift + 7
            if not byte & _VARINT_MORE:
                break
        if start + length == len(raw):
            return Data(memoryview(raw)[start:])
    try:
        return pb.UploadFileRequest.FromString(raw)
    except DecodeError:
        return pb.UploadFileRequest()


def size_of(message: UploadMessage) -> int:
    """Return how many bytes a message keeps in memory, as far as they count."""
    return len(message.view) if isinstance(message, Data) else 0


def _data_of(message: UploadMessage) -> memoryview | None:
    if isinstance(message, Data):
        return message.view
    return memoryview(message.data) if message.WhichOneof("message") == "data" else None


class UploadStream:
    """The course of one UploadFile call."""

    def __init__(self, ingest: Ingest, inbox: Inbox[UploadMessage], caller: Caller, *, idle_timeout: float) -> None:
        self._ingest = ingest
        self._inbox = inbox
        self._caller = caller
        self._idle_timeout = idle_timeout
        self._loop = asyncio.get_running_loop()
        self._heard_at = self._loop.time()
        # What the sender was told last.
        self._told = -1
        # Once it is open.
        self._upload: Upload | None = None

    async def responses(self) -> AsyncIterator[pb.UploadFileResponse]:
        """Yield what the sender hears; raises what the call ends with."""
        try:
            async for response in self._course():
                yield response
        except UploadCancelled as error:
            # Told before anything is waited for: the disk may be busy.
            yield pb.UploadFileResponse(stopped=stopped_to_proto(error.file))
            await self._inbox.discard(_HEAR_SECONDS)
            raise
        except UploadError:
            await self._close()
            await self._inbox.discard()
            raise
        finally:
            await self._close()

    async def _course(self) -> AsyncIterator[pb.UploadFileResponse]:
        header = await self._header()
        self._upload = upload = await self._ingest.open(header.file_id, header.offset, self._caller)
        upload.on_news(self._inbox.ring)
        yield self._progress(upload)
        while not self._inbox.ended:
            if upload.durable > self._told:
                yield self._progress(upload)
            commit = await self._step(upload)
            if commit is not None:
                file = await upload.commit(commit.sha256, self._caller)
                yield pb.UploadFileResponse(completed=file_to_proto(file))
                return
        await upload.close()
        if upload.durable > self._told:
            yield self._progress(upload)

    async def _close(self) -> None:
        """Let go of the file, if it was opened; waits for the disk."""
        if self._upload is not None:
            await self._upload.close()

    async def _header(self) -> pb.UploadHeader:
        while (message := self._inbox.take()) is None:
            if self._inbox.ended:
                raise UnexpectedMessage("The stream ended before its header")
            await self._hear("")
        if isinstance(message, Data) or message.WhichOneof("message") != "header":
            raise UnexpectedMessage("The first message must be a header")
        rules = Rules()
        rules.identifier("header.file_id", message.header.file_id)
        if message.header.offset < 0:
            rules.refuse("header.offset", "must not be negative")
        rules.check()
        return message.header

    async def _step(self, upload: Upload) -> pb.UploadCommit | None:
        """Take one message, or wait for something to happen; returns the commit when it comes."""
        upload.check()
        message = self._inbox.take()
        if message is None:
            await self._hear(upload.file.file_id)
            return None
        data = _data_of(message)
        if data is not None:
            await self._write(upload, data)
            return None
        assert not isinstance(message, Data)  # noqa: S101 - those are data, which was handled
        if message.WhichOneof("message") != "commit":
            raise UnexpectedMessage("After the header only data and one commit may come")
        rules = Rules()
        rules.sha256("commit.sha256", message.commit.sha256)
        rules.check()
        return message.commit

    async def _write(self, upload: Upload, data: memoryview) -> None:
        if len(data) > MAX_DATA_BYTES:
            raise InvalidField([FieldViolation("data", f"must be at most {MAX_DATA_BYTES} bytes a message")])
        if data:
            self._heard_at = self._loop.time()
            await upload.write(data)

    async def _hear(self, file_id: str) -> None:
        """Wait for a message or news; raises ``UploadIdle`` when no byte came for too long."""
        idle_at = self._heard_at + self._idle_timeout
        if self._loop.time() >= idle_at:
            raise UploadIdle(file_id, self._idle_timeout)
        timer = self._loop.call_at(idle_at, self._inbox.ring)
        try:
            await self._inbox.heard()
        finally:
            timer.cancel()

    def _progress(self, upload: Upload) -> pb.UploadFileResponse:
        self._told = upload.durable
        return pb.UploadFileResponse(progress=pb.UploadProgress(bytes_received=self._told))
