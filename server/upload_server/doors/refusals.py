"""Decides how a refused call is logged: which call, through which door, why, and the state it found.

Must not know how the caller is told. The audit trail has no refusals: they change nothing.
"""

from __future__ import annotations

import structlog

from upload_server.domain.errors import InternalError, Overloaded, Stopped, UploadError

log = structlog.get_logger("upload_server.calls")


def log_refusal(method: str, door: str, error: UploadError) -> None:
    """Write the line of a call that ended with ``error``.

    At DEBUG what comes in masses and says nothing of the call itself: a stream that had to stop, a server that is full.
    What nobody foresaw has its line already, with the incident that the caller gets.
    """
    if isinstance(error, InternalError):
        return
    write = log.debug if isinstance(error, Stopped | Overloaded) else log.info
    write("call.refused", method=method, door=door, error=error.reason, **error.metadata)
