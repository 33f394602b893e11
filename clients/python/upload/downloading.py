"""Decides how a download goes on over broken connections, and that its bytes are those that were uploaded.

Must not know what the caller does with them.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator
from contextlib import aclosing

from upload import errors
from upload.retry import Backoff, call_repeatable
from upload.transport import DOWNLOAD_FILE, Transport
from upload.v1 import upload_pb2 as pb


class OtherBytes(errors.ChecksumMismatch):
    """The bytes of a download are not those that were uploaded."""

    advice = "try again; if it stays so, the storage of the service is damaged: tell whoever runs it"


async def download(
    transport: Transport, request: pb.DownloadFileRequest, backoff: Backoff
) -> AsyncGenerator[bytes, None]:
    """Yield the bytes that ``request`` asks for; of a whole file raise ``ChecksumMismatch`` when they are others."""
    whole = not (request.offset or request.length)
    digest, file = hashlib.sha256(), pb.File()
    end = request.offset + request.length if request.length else None
    while end is None or request.offset < end:
        request.length = end - request.offset if end is not None else 0
        try:
            async with aclosing(transport.stream(DOWNLOAD_FILE, request)) as messages:
                async for message in messages:
                    if message.HasField("file"):
                        file = message.file
                        continue
                    backoff.reset()
                    request.offset += len(message.data)
                    digest.update(message.data)
                    yield message.data
            break
        except errors.UploadServiceError as error:
            delay = backoff.next(error.retry_after)
            if delay is None or not (call_repeatable(error) or error.refreshed):
                raise
            await transport.sleep(delay)
    if whole and digest.hexdigest() != file.sha256:
        metadata = {"file_id": file.file_id, "expected_sha256": file.sha256, "actual_sha256": digest.hexdigest()}
        raise OtherBytes("The bytes that came are not those that were uploaded", metadata=metadata)
