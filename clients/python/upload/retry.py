"""Decides which calls are repeated, how often, and after how long. Pure: it neither waits nor calls.

A change is only repeated with the same ``request_id``, which makes that safe.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from grpc import StatusCode

from upload import errors

# The connection or the server's process went, or the answer's end was lost: the next try may meet a healthy one.
_BROKEN = {StatusCode.UNAVAILABLE, StatusCode.INTERNAL, StatusCode.UNKNOWN}


@dataclass(slots=True)
class Backoff:
    """Growing pauses with jitter: ``tries`` of them, from ``first`` seconds, doubling up to ``cap`` seconds."""

    tries: int = 8
    first: float = 0.2
    cap: float = 5.0
    _taken: int = field(default=0, init=False)

    def reset(self) -> None:
        """Start over after progress."""
        self._taken = 0

    def next(self, at_least: float | None = None) -> float | None:
        """Return the seconds to wait now, or None after the last try."""
        if self._taken >= self.tries:
            return None
        ceiling = min(self.cap, self.first * 2.0 ** min(self._taken, 30))
        self._taken += 1
        # Half of it random: clients that lost one server together do not come back together.
        return max(at_least or 0.0, ceiling * random.uniform(0.5, 1.0))  # noqa: S311 - spreading load, no secret


def call_repeatable(error: errors.UploadServiceError) -> bool:
    """Whether a unary call with a request_id (or a read) may be repeated."""
    if isinstance(error, errors.InternalError):
        return False
    return error.code in _BROKEN or error.code is StatusCode.DEADLINE_EXCEEDED or isinstance(error, errors.Overloaded)


def upload_resumable(error: errors.UploadServiceError) -> bool:
    """Whether the sender should ask for the file's state (GetFile) and resume the upload if that is not final.

    ABORTED is not among these codes, so never after ``WRITER_REPLACED``: two senders would take the file from each
    other for ever.
    """
    return (
        error.refreshed
        or error.code in _BROKEN
        or isinstance(error, errors.Overloaded | errors.OffsetMismatch | errors.FileNotWritable)
    )


def status_lost(error: errors.UploadServiceError) -> bool:
    """Whether the server's status of an upload stream may have been lost.

    grpc.aio reports INTERNAL when a write fails because the stream has ended, and forgets its status: for about a third
    of the streams that the server ends while they send at full speed. It may have been ``WRITER_REPLACED``.
    """
    return error.code is StatusCode.INTERNAL and not error.reason


def watch_resumable(error: errors.UploadServiceError) -> bool:
    """Whether a watch should reconnect with its token."""
    passing = {*_BROKEN, StatusCode.CANCELLED, StatusCode.DEADLINE_EXCEEDED}
    return error.refreshed or error.code in passing or isinstance(error, errors.Overloaded)
