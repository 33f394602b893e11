"""Decides how a cancel is repeated until its outcome is known: always with a request id; "already cancelled" will do.

Must not know who asks, nor on what loop it runs.
"""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass
from datetime import datetime

from upload import errors
from upload.retry import Backoff, call_repeatable
from upload.statuses import moment
from upload.transport import (
    CANCEL_BATCH,
    CANCEL_FILE,
    GET_BATCH,
    GET_FILE,
    Method,
    Request,
    Response,
    Transport,
)
from upload.v1 import upload_pb2 as pb

# One try may take this much of the whole time: a connection that swallows everything must not eat all of it.
TRY_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class CancelledFile:
    """A cancelled file. ``already``: ``cancelled_by`` cancelled it before this call, for ``cancel_reason``."""

    file_id: str
    filename: str
    cancelled_at: datetime
    already: bool = False
    cancelled_by: str = ""
    cancel_reason: str = ""


@dataclass(frozen=True, slots=True)
class CancelledBatch:
    """A batch that is cancelled; ``cancelled_files_count`` are the files that this call cancelled.

    ``already``: ``cancelled_by`` cancelled it before this call, for ``cancel_reason``.
    """

    batch_id: str
    cancelled_files_count: int
    total_files_in_batch: int
    cancelled_at: datetime
    already: bool = False
    cancelled_by: str = ""
    cancel_reason: str = ""


def new_request_id() -> str:
    """Return an id under which a call is safe to repeat."""
    return str(uuid.uuid4())


async def ask(
    transport: Transport,
    method: Method[Request, Response],
    request: Request,
    seconds: float,
    request_id: str = "",
    tries: int = 4,
) -> Response:
    """Repeat a call until its answer comes, within ``seconds`` in all.

    The error that it raises in the end carries the ``request_id``, so that the caller can repeat the call later.
    """
    deadline = time.monotonic() + seconds
    backoff = Backoff(tries=tries)
    unreachable: errors.ServerUnreachable | None = None
    while True:
        left = deadline - time.monotonic()
        try:
            return await transport.unary(method, request, min(left, TRY_SECONDS))
        except errors.UploadServiceError as error:
            delay = backoff.next(error.retry_after) if call_repeatable(error) else None
            if delay is None or time.monotonic() + delay >= deadline:
                final = unreachable if unreachable and isinstance(error, errors.DeadlineExceeded) else error
                if request_id:
                    final.metadata.setdefault("request_id", request_id)
                raise final from error.__cause__
            if isinstance(error, errors.ServerUnreachable):
                # When time runs out in a later try, this error tells more than the timeout.
                unreachable = error
        await transport.sleep(delay)


async def cancel_file(
    transport: Transport, file_id: str, reason: str, request_id: str, seconds: float
) -> CancelledFile:
    """Cancel a file; raises ``FileNotCancellable`` when it is completed or failed."""
    request = pb.CancelFileRequest(file_id=file_id, reason=reason, request_id=request_id)
    try:
        answer = await ask(transport, CANCEL_FILE, request, seconds, request_id)
    except errors.FileNotCancellable as error:
        if error.status != "cancelled":
            raise
        file = await ask(transport, GET_FILE, pb.GetFileRequest(file_id=file_id), seconds)
        return CancelledFile(
            file.file_id,
            file.filename,
            moment(file.cancelled_at),
            already=True,
            cancelled_by=file.cancelled_by,
            cancel_reason=file.cancel_reason,
        )
    return CancelledFile(answer.file_id, answer.filename, moment(answer.cancelled_at))


async def cancel_batch(
    transport: Transport, batch_id: str, reason: str, request_id: str, seconds: float
) -> CancelledBatch:
    """Cancel a batch; raises ``BatchNotCancellable`` when it is completed or failed."""
    request = pb.CancelBatchRequest(batch_id=batch_id, reason=reason, request_id=request_id)
    try:
        answer = await ask(transport, CANCEL_BATCH, request, seconds, request_id)
    except errors.BatchNotCancellable as error:
        if error.status != "cancelled":
            raise
        batch = await ask(transport, GET_BATCH, pb.GetBatchRequest(batch_id=batch_id), seconds)
        return CancelledBatch(
            batch.batch_id,
            0,
            batch.total_files,
            moment(batch.cancelled_at),
            already=True,
            cancelled_by=batch.cancelled_by,
            cancel_reason=batch.cancel_reason,
        )
    return CancelledBatch(
        answer.batch_id,
        answer.cancelled_files_count,
        answer.total_files_in_batch,
        moment(answer.cancelled_at),
    )
