"""Decides how the outcome of a tus request is said: HTTP status, headers, and a Status as the body of every error.

Must not know how it came about. The statuses are chosen for what existing clients do with them: 409 has them ask for
the offset and go on, any other 4xx has them stop, and 5xx has them try again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from google.rpc.code_pb2 import Code
from google.rpc.status_pb2 import Status

from transcoder.asgi import UNCACHED
from upload_server.domain.errors import (
    FieldViolation,
    FileNotWritable,
    InvalidField,
    NotInState,
    OffsetMismatch,
    Stopped,
    UploadCancelled,
    UploadError,
    WriterReplaced,
    state_metadata,
)
from upload_server.domain.states import File, FileStatus
from upload_server.doors.errors import http_status_of, to_status
from upload_server.doors.http.asgi import JSON, Headers, headers_for, status_body, status_of, whole
from upload_server.doors.tus.protocol import VERSION

NO_CONTENT: Final = 204
# A number of tus's own.
CHECKSUM_MISMATCH: Final = 460
# Clients ask again later.
LOCKED: Final = 423
# After these a client stops for good, if it hears them; after others, and after a broken connection, it asks on.
_LAST_WORDS: Final = frozenset({400, 403, 410, 413})
_TOO_MANY: Final = 429
_SERVER_ERRORS: Final = 500


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer; ``outcome`` is the gRPC code's name, for the metrics."""

    status: int
    headers: Headers = field(default_factory=list)
    body: bytes = b""
    outcome: str = "OK"

    @property
    def stops(self) -> bool:
        """Whether its client stops for good, once it has heard it."""
        return self.status in _LAST_WORDS

    def all_headers(self) -> Headers:
        """Headers as they go out; an answer without content says nothing of its type and length."""
        tus = [(b"tus-resumable", VERSION), *self.headers]
        if self.status == NO_CONTENT:
            return [*UNCACHED, *tus]
        return whole(self.body, JSON, tus)


class Refused(Exception):
    """What only this door refuses."""

    def __init__(self, http_status: int, status: Status, extra: Headers | None = None) -> None:
        super().__init__(status.message)
        self.answer = _error(http_status, status, extra or [])


def version_not_spoken() -> Refused:
    """The client speaks another version, or does not say which."""
    status = status_of(Code.FAILED_PRECONDITION, "TUS_VERSION_NOT_SUPPORTED", "Tus-Resumable must be 1.0.0")
    return Refused(412, status, [(b"tus-version", VERSION)])


def method_not_allowed(method: str, allowed: str) -> Refused:
    """This path takes other methods."""
    text = f"This path takes {allowed}, not {method[:32]}"
    status = status_of(Code.UNIMPLEMENTED, "METHOD_NOT_ALLOWED", text)
    return Refused(405, status, [(b"allow", allowed.encode())])


def not_bytes() -> Refused:
    """The body is not declared to be what tus sends."""
    text = "Content-Type must be application/offset+octet-stream"
    return Refused(415, status_of(Code.INVALID_ARGUMENT, "UNSUPPORTED_MEDIA_TYPE", text))


def too_long(size: int, max_file_bytes: int) -> Refused:
    """The file would be longer than any may be."""
    rule = f"is {size} but may be at most {max_file_bytes}"
    return Refused(413, to_status(InvalidField([FieldViolation("Upload-Length", rule, max_file_bytes)])))


def chunk_mismatch(file_id: str, durable: int) -> Refused:
    """The bytes are not those that the client has sent; they are dropped."""
    text = "The bytes do not have the checksum given; they were dropped and can be sent again"
    status = status_of(Code.ABORTED, "CHUNK_CHECKSUM_MISMATCH", text, file_id=file_id, expected_offset=str(durable))
    return Refused(CHECKSUM_MISMATCH, status)


def locked(file: File) -> Refused:
    """Every byte is there, but that is no success: clients would take an offset at the end for one."""
    text = f"The file is {file.status} with an offset at its end: nothing can be sent, and it is not completed"
    return Refused(LOCKED, status_of(Code.FAILED_PRECONDITION, "FILE_NOT_COMPLETED", text, **state_metadata(file)))


def cancelled_file(error: UploadError) -> File | None:
    """Return the file of an error that says that it is cancelled."""
    if isinstance(error, UploadCancelled):
        return error.file
    found = error.found if isinstance(error, NotInState) else None
    return found if isinstance(found, File) and found.status is FileStatus.CANCELLED else None


def refused(error: UploadError, *, of_head: bool = False, fight: bool = False) -> Answer:
    """An error that every door knows. ``fight``: its sender is not replaced for the first time."""
    cancelled = cancelled_file(error)
    status = to_status(error) if cancelled is None else to_status(error, cancel_reason=cancelled.cancel_reason)
    http_status = 403 if fight else _http_status(error)
    if of_head and (isinstance(error, Stopped) or http_status >= _SERVER_ERRORS or http_status == _TOO_MANY):
        # At anything else than 423 clients that ask for an offset begin the upload anew, on their own.
        http_status = LOCKED
    return _error(http_status, status, headers_for(error))


def _error(http_status: int, status: Status, extra: Headers) -> Answer:
    return Answer(http_status, extra, status_body(status), Code.Name(status.code))


def _http_status(error: UploadError) -> int:
    match error:
        case UploadCancelled():
            return 410
        case OffsetMismatch() | WriterReplaced():
            return 409
        case NotInState(found=File() as found):
            return _final_status(error, found)
    return http_status_of(error)


def _final_status(error: NotInState, found: File) -> int:
    """What is final takes no bytes: a cancelled or failed file is gone, a completed one has all of them."""
    if found.status is FileStatus.CANCELLED:
        return 410
    if not isinstance(error, FileNotWritable):
        return 400
    return 409 if found.status is FileStatus.COMPLETED else 410
