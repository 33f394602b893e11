"""Decides how the bytes of a completed file are answered over HTTP: ranges, conditions and name (RFC 9110, 6266).

Must not know where they lie. They are a stranger's: no browser may run or embed them.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Final
from urllib.parse import quote

from google.rpc.code_pb2 import Code

from upload_server.domain.errors import FieldViolation, InvalidField, UploadError, state_metadata
from upload_server.domain.states import File
from upload_server.doors.admission import Gate
from upload_server.doors.calls import Call, Calls
from upload_server.doors.errors import to_status
from upload_server.doors.http.asgi import (
    Headers,
    Receive,
    Scope,
    Send,
    headers_of,
    is_gone,
    refuse,
    respond,
    status_body,
    status_of,
)
from upload_server.doors.http.pour import POUR, Pour, Source, of_blocks, of_file
from upload_server.ingest import Content
from upload_server.service import Uploads

# Sent by a thread from so many bytes on; fewer are written as they are.
_LEAST_POURED: Final = 64 * 1024
# As many digits as 64 bits have: some clients write the largest number for the end.
_RANGE: Final = re.compile(rb"bytes=(\d{0,20})-(\d{0,20})", re.IGNORECASE)
# What RFC 8187 lets stand besides letters and digits.
_PLAIN: Final = "!#$&+-.^_`|~"
_HEADERS: Final = (
    (b"accept-ranges", b"bytes"),
    (b"cache-control", b"private, no-cache"),
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"sandbox; default-src 'none'"),
    (b"cross-origin-resource-policy", b"same-origin"),
)


class ContentDoor:
    """Answers GET and HEAD of a file's content."""

    def __init__(self, uploads: Uploads, calls: Calls) -> None:
        self._uploads = uploads
        self._calls = calls

    async def __call__(self, file_id: str, receive: Receive, scope: Scope, send: Send) -> None:
        """Serve one request."""
        begun = False

        async def tell(error: UploadError) -> None:
            # Once the head is out, only the end of the connection says that something went wrong.
            if not begun:
                await refuse(send, error)

        of_head = scope["method"] == "HEAD"
        async with Call(self._calls, "DownloadFile", tell, scope) as call:
            caller = await call.admit(Gate.READ if of_head else Gate.DOWNLOAD)
            with self._calls.limit():
                content = await self._uploads.get_content(file_id, caller)
            call.about = {"file_id": file_id}
            answer = _Answer(content.file, scope)
            if answer.status in _REFUSALS:
                call.code = "FAILED_PRECONDITION"
                await _REFUSALS[answer.status](send, content.file)
                return
            part = range(0) if of_head else answer.part
            async with self._calls.admission.while_valid(caller), _opened(content, part, scope.get(POUR)) as body:
                begun = True
                await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
                if not await body(receive, send):
                    call.code = "CANCELLED"
                    return
            await send({"type": "http.response.body", "body": b""})


class _Answer:
    """What a request is answered with: status, headers, and the part of the file that follows them."""

    def __init__(self, file: File, scope: Scope) -> None:
        etag = f'"{file.sha256}"'.encode()
        asked = {name: b", ".join(headers_of(scope, name)) for name in (b"if-match", b"if-none-match", b"if-range")}
        self.headers: Headers = [(b"etag", etag), *_HEADERS]
        self.part = range(0)
        if asked[b"if-match"] and not _names(asked[b"if-match"], etag, weak=False):
            self.status = 412
        elif asked[b"if-none-match"] and _names(asked[b"if-none-match"], etag, weak=True):
            self.status = 304
        else:
            wanted = _range_of(scope, file.size_bytes) if asked[b"if-range"] in (b"", etag) else None
            self.status = 200 if wanted is None else 206 if wanted else 416
            self.part = range(file.size_bytes) if wanted is None else wanted
            self.headers += _of_content(file, self.part, partial=wanted is not None)


def _names(tags: bytes, etag: bytes, *, weak: bool) -> bool:
    """Whether a list of entity tags has this one, or any will do; ``weak``: also as a weak one."""
    listed = [tag.strip() for tag in tags.split(b",")]
    return listed == [b"*"] or etag in listed or (weak and b"W/" + etag in listed)


def _range_of(scope: Scope, size: int) -> range | None:
    """Return the part that is asked for, empty when there is no such; None: all of it.

    As RFC 9110, 14.2 allows, what is malformed, of other units or of several parts is answered with all.
    """
    given = headers_of(scope, b"range") if scope["method"] == "GET" else []
    match = _RANGE.fullmatch(given[0].strip()) if len(given) == 1 else None
    if match is None:
        return None
    first, last = match.groups()
    if not first:
        return range(max(0, size - int(last)), size) if last else None
    if last and int(last) < int(first):
        return None
    return range(int(first), min(size, int(last) + 1 if last else size))


def _of_content(file: File, part: range, *, partial: bool) -> Headers:
    headers = [
        (b"content-type", file.content_type.encode() or b"application/octet-stream"),
        (b"content-length", b"%d" % len(part)),
        (b"content-disposition", _disposition(file.filename)),
    ]
    if partial:
        headers.append((b"content-range", b"bytes %d-%d/%d" % (part.start, part.stop - 1, file.size_bytes)))
    return headers


def _disposition(filename: str) -> bytes:
    """Name the file as a browser stores it: by its last segment, in ASCII and as it is."""
    name = filename.rpartition("/")[2]
    plain = re.sub(r'[^ -~]|["\\%]', "_", name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe=_PLAIN)}".encode()


async def _refuse_condition(send: Send, file: File) -> None:
    text = "The file's ETag, made of its SHA-256, is none of those that If-Match names"
    status = status_of(Code.FAILED_PRECONDITION, "PRECONDITION_FAILED", text, **state_metadata(file))
    await respond(send, 412, status_body(status))


async def _refuse_range(send: Send, file: File) -> None:
    size = file.size_bytes
    violation = FieldViolation("Range", f"must begin before the file's end, at {size} bytes", size)
    body = status_body(to_status(InvalidField([violation])))
    await respond(send, 416, body, extra=[(b"content-range", b"bytes */%d" % size)])


_REFUSALS: Final = {412: _refuse_condition, 416: _refuse_range}


# Sends bytes of a file as the rest of an answer; returns False when the peer is gone.
Body = Callable[[Receive, Send], Awaitable[bool]]


@contextlib.asynccontextmanager
async def _opened(content: Content, part: range, pour: Pour | None) -> AsyncIterator[Body]:
    """Open a part, so that one which cannot be read is refused in words; gives what sends it."""
    if pour is None or len(part) < _LEAST_POURED:
        async with contextlib.aclosing(content.ahead(part.start, part.stop)) as blocks:
            first = await anext(blocks, b"") if part else b""
            yield functools.partial(_write, first, blocks)
    elif (descriptor := await content.descriptor()) is not None:
        try:
            yield functools.partial(_pour, content, pour, of_file(descriptor), part)
        finally:
            os.close(descriptor)
    else:
        async with content.blocks(part.start, part.stop) as take:
            # The first block has no name here: it would stay in memory until the end.
            source = of_blocks(await content.in_thread(take), take)
            yield functools.partial(_pour, content, pour, source, part)


async def _pour(content: Content, pour: Pour, source: Source, part: range, _receive: Receive, _send: Send) -> bool:
    try:
        return await pour(content.in_thread, source, part.start, len(part))
    except OSError as error:
        raise await content.failure(error) from error


async def _write(first: bytes, others: AsyncGenerator[bytes, None], receive: Receive, send: Send) -> bool:
    piece = first
    while piece:
        await send({"type": "http.response.body", "body": piece, "more_body": True})
        if await is_gone(receive):
            return False
        piece = await anext(others, b"")
    return True
