"""What can go wrong, one exception class per reason; ``str()`` says in a sentence what happened and what to do.

UploadServiceError
├── NotFound: FileNotFound, BatchNotFound
├── NotInState: FileNotCancellable, BatchNotCancellable, FileNotWritable, FileNotCompleted, ContentDeleted
├── UploadCancelled, WriterReplaced, UploadIdle, UploadFailed, ChecksumMismatch
├── OffsetMismatch, UploadIncomplete, SizeExceeded
├── UnexpectedMessage, InvalidField, RequestIdReused
├── AccessDenied: PermissionDenied, NotSignedIn (CredentialMissing, CredentialInvalid, CredentialExpired)
├── Unavailable: ServerUnreachable, ShuttingDown, DeadlineExceeded, Overloaded
├── ServerFailure: DatabaseFailure, StorageFailure, StorageFull, OutcomeUnknown, InternalError
└── SourceError: SourceChanged, SourceNotReplayable       (raised by the client itself)
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import ClassVar

import grpc


class UploadServiceError(Exception):
    """Base of everything this client raises about an upload, a watch or a cancel.

    ``reason`` is the UPPER_SNAKE word of the server's ``ErrorInfo`` (empty when the answer carried none),
    ``metadata`` its facts, ``code`` the gRPC code (None when the client itself found the fault), ``message`` what
    happened, and ``retry_after`` how many seconds the server asks to wait.

    Example::

        try:
            client.cancel(file_id)
        except errors.FileNotCancellable as error:
            print(error.status, error.metadata)
    """

    reason: str = ""
    # The server refused the token, and there is another one: the call may be made again.
    refreshed: bool = False
    advice: ClassVar[str] = ""

    def __init__(
        self,
        message: str,
        *,
        reason: str | None = None,
        metadata: Mapping[str, str] | None = None,
        code: grpc.StatusCode | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        if reason is not None:
            self.reason = reason
        self.metadata: dict[str, str] = dict(metadata or {})
        self.code = code
        self.retry_after = retry_after

    def __str__(self) -> str:
        sentence = self.message.rstrip(". ")
        return f"{sentence}; {self.advice}." if self.advice else f"{sentence}."

    @property
    def file_id(self) -> str:
        """The file it is about, or empty."""
        return self.metadata.get("file_id", "")

    @property
    def batch_id(self) -> str:
        """The batch it is about, or empty."""
        return self.metadata.get("batch_id", "")


class NotFound(UploadServiceError):
    """Nothing of that id, or not yours to see."""

    advice = "check the id and the server it was made on"


class FileNotFound(NotFound):
    """No such file."""

    reason = "FILE_NOT_FOUND"


class BatchNotFound(NotFound):
    """No such batch."""

    reason = "BATCH_NOT_FOUND"


class _Stated(UploadServiceError):
    """Carries the state that the server found."""

    @property
    def status(self) -> str:
        """The state found: a lower-case word such as ``completed``."""
        return self.metadata.get("status", "")

    @property
    def revision(self) -> int:
        """The revision of that state, 0 when the answer had none."""
        return int(self.metadata.get("revision", "0"))

    @property
    def cancelled_at(self) -> datetime | None:
        """When it was cancelled, or None."""
        text = self.metadata.get("cancelled_at")
        return datetime.fromisoformat(text) if text else None

    @property
    def cancelled_by(self) -> str:
        """Who cancelled it: ``user``, ``user:<principal>``, ``batch_cancel``, ``websocket_close``; or empty."""
        return self.metadata.get("cancelled_by", "")

    @property
    def cancel_reason(self) -> str:
        """Why, as the caller of the cancel gave it."""
        return self.metadata.get("cancel_reason", "")


class NotInState(_Stated):
    """The call is not possible in the state found; nothing changed."""


class FileNotCancellable(NotInState):
    """The file is final: it is too late to cancel it."""

    reason = "FILE_NOT_CANCELLABLE"
    advice = "nothing was changed"


class BatchNotCancellable(NotInState):
    """The batch is final: it is too late to cancel it."""

    reason = "BATCH_NOT_CANCELLABLE"
    advice = "nothing was changed"


class FileNotWritable(NotInState):
    """The file of a new upload stream is final."""

    reason = "FILE_NOT_WRITABLE"
    advice = "start a new upload"


class FileNotCompleted(NotInState):
    """The file of a download has no bytes to read: it is not completed."""

    reason = "FILE_NOT_COMPLETED"
    advice = "only completed files can be downloaded"


class ContentDeleted(NotInState):
    """The file is completed, and its bytes were let go: ``metadata`` says when and by whom."""

    reason = "CONTENT_DELETED"
    advice = "upload it again if it is still wanted"


class UploadCancelled(_Stated):
    """The file was cancelled; ``cancelled_by``, ``cancelled_at`` and ``cancel_reason`` say by whom, when and why."""

    reason = "UPLOAD_CANCELLED"
    advice = "its bytes were removed, start a new upload if it is still wanted"


class WriterReplaced(UploadServiceError):
    """A newer stream took the file over. The client does not resume by itself: two would take it from each other."""

    reason = "WRITER_REPLACED"
    advice = "let the other sender finish"


class UploadIdle(UploadServiceError):
    """No byte came for too long; the file can be resumed."""

    reason = "UPLOAD_IDLE"
    advice = "resume the upload"


class UploadFailed(_Stated):
    """The file is failed; ``failure_reason`` says why."""

    reason = "UPLOAD_FAILED"
    advice = "start a new upload"

    @property
    def failure_reason(self) -> str:
        """``checksum_mismatch`` or ``expired``."""
        return self.metadata.get("failure_reason", "")


class ChecksumMismatch(UploadFailed):
    """The bytes received are not the announced ones; the file is failed."""

    reason = "CHECKSUM_MISMATCH"
    advice = "check the source and start a new upload"


class OffsetMismatch(UploadServiceError):
    """The stream did not start where the file's durable bytes end."""

    reason = "OFFSET_MISMATCH"
    advice = "resume at the expected offset"


class UploadIncomplete(UploadServiceError):
    """A commit came before all bytes; the file can be resumed."""

    reason = "UPLOAD_INCOMPLETE"
    advice = "resume the upload"


class SizeExceeded(UploadServiceError):
    """More bytes than announced."""

    reason = "SIZE_EXCEEDED"
    advice = "start a new upload with the right size"


class UnexpectedMessage(UploadServiceError):
    """A message out of order: client and server do not match."""

    reason = "UNEXPECTED_MESSAGE"
    advice = "check that client and server have the same version"


class InvalidField(UploadServiceError):
    """A field breaks a rule; nothing changed."""

    reason = "INVALID_FIELD"
    advice = "correct it and ask again"


class RequestIdReused(UploadServiceError):
    """The request id came before with another request; nothing changed."""

    reason = "REQUEST_ID_REUSED"
    advice = "use a new request id for a new request"


class AccessDenied(UploadServiceError):
    """The server does not accept the caller (UNAUTHENTICATED or PERMISSION_DENIED)."""

    advice = "check the credentials"


class NotSignedIn(AccessDenied):
    """The server does not know who calls."""

    advice = "give a token that is valid there"


class CredentialMissing(NotSignedIn):
    """The call carried no credential."""

    reason = "CREDENTIAL_MISSING"


class CredentialInvalid(NotSignedIn):
    """The credential is none there, or was taken back."""

    reason = "CREDENTIAL_INVALID"


class CredentialExpired(NotSignedIn):
    """The credential's time is over."""

    reason = "CREDENTIAL_EXPIRED"
    advice = "get a new one"


class PermissionDenied(AccessDenied):
    """The server knows who calls, and that caller may not do this."""

    reason = "PERMISSION_DENIED"
    advice = "ask the operator for the right"


class Unavailable(UploadServiceError):
    """The server is out of reach now; a later try may work."""


class ServerUnreachable(Unavailable):
    """No answer from the server: it is not there, or the connection broke."""

    advice = "check that the server runs and that its address is right"


class ShuttingDown(Unavailable):
    """The server is draining."""

    reason = "SHUTTING_DOWN"
    advice = "try again in a moment"


class DeadlineExceeded(Unavailable):
    """No answer in the time given. The server may have carried the call out all the same."""

    advice = "look with `get` what became of it, or ask again with the same request id"


class Overloaded(Unavailable):
    """The server has no room for this kind of call right now."""

    reason = "OVERLOADED"
    advice = "try again in a moment"


class RateExceeded(Overloaded):
    """You call more often than you may."""

    reason = "RATE_EXCEEDED"


class QuotaExceeded(UploadServiceError):
    """You have as much of something as you may have; ``metadata`` says of what, and how much."""

    reason = "QUOTA_EXCEEDED"
    advice = "cancel what is no longer wanted, or ask whoever runs the server for more"


class ServerFailure(UploadServiceError):
    """The server failed by itself."""

    advice = "try again"


class DatabaseFailure(ServerFailure):
    """The database could not take the change; nothing changed."""

    reason = "DATABASE_FAILURE"
    advice = "try again"


class StorageFailure(ServerFailure):
    """The storage could not take the bytes."""

    reason = "STORAGE_FAILURE"
    advice = "try again"


class StorageFull(ServerFailure):
    """The server keeps what room it has left for cancels and for uploads that are open."""

    reason = "STORAGE_FULL"
    advice = "cancel what is no longer wanted, or tell whoever runs the server"


class OutcomeUnknown(ServerFailure):
    """The server does not know yet whether the change was committed."""

    reason = "OUTCOME_UNKNOWN"
    advice = "ask again with the same request id"


class InternalError(ServerFailure):
    """Anything else; ``metadata["incident"]`` is in the server's log too."""

    reason = "INTERNAL"
    advice = "tell whoever runs the server the incident id"


class SourceError(UploadServiceError):
    """The source did not give the bytes as announced. The file stays resumable until it is cancelled or expires."""


class SourceChanged(SourceError):
    """The source changed meanwhile, or does not have the announced size."""

    reason = "SOURCE_CHANGED"
    advice = "upload it again when nobody writes to it"


class SourceNotReplayable(SourceError):
    """The connection broke, and the source cannot repeat the lost bytes."""

    reason = "SOURCE_NOT_REPLAYABLE"
    advice = "start again, or resume from a file"


def _leaves(base: type[UploadServiceError]) -> dict[str, type[UploadServiceError]]:
    found = {base.reason: base} if base.reason else {}
    for child in base.__subclasses__():
        found |= _leaves(child)
    return found


BY_REASON: Mapping[str, type[UploadServiceError]] = _leaves(UploadServiceError)
