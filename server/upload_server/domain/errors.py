"""Names what can go wrong, with the facts a caller needs: one class per reason of the contract.

Must not know how an error is said: no gRPC code, no HTTP status, no protobuf.

UploadError
├── NotFound: FileNotFound, BatchNotFound
├── NotInState: FileNotCancellable, BatchNotCancellable, FileNotWritable, FileNotCompleted, ContentDeleted
├── Stopped: UploadCancelled, WriterReplaced, UploadIdle, ShuttingDown (CutOff)
├── OffsetMismatch, UploadIncomplete, SizeExceeded, ChecksumMismatch
├── UnexpectedMessage, InvalidField, RequestIdReused, BodyTooLarge, Overloaded, StorageFull
├── NotIdentified: CredentialMissing, CredentialInvalid (CredentialLost), CredentialExpired
├── PermissionDenied
└── DatabaseFailure, StorageFailure, OutcomeUnknown, InternalError
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

from upload_server.domain.states import Batch, File


class UploadError(Exception):
    """Base of everything a caller is told; ``str()`` is the message, safe to send."""

    reason: ClassVar[str] = "INTERNAL"
    # How long a caller should wait before it asks again, where waiting may help.
    retry_after_seconds: float | None = None

    def __init__(self, message: str, metadata: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.metadata: dict[str, str] = dict(metadata or {})


class CannotStart(Exception):
    """The process cannot start or a command cannot run; the message says why and what to do. No caller sees it."""


class NotFound(UploadError):
    """Nothing of that id, or not the caller's to see: the two cannot be told apart."""


class FileNotFound(NotFound):
    """No such file."""

    reason = "FILE_NOT_FOUND"

    def __init__(self, file_id: str) -> None:
        super().__init__("No file has this id", {"file_id": file_id})


class BatchNotFound(NotFound):
    """No such batch."""

    reason = "BATCH_NOT_FOUND"

    def __init__(self, batch_id: str) -> None:
        super().__init__("No batch has this id", {"batch_id": batch_id})


def timestamp_text(moment: datetime) -> str:
    """RFC 3339 in UTC with ``Z`` and as many of six digits as needed, as ProtoJSON prints it (3 or 6)."""
    text = moment.strftime("%Y-%m-%dT%H:%M:%S")
    if moment.microsecond:
        digits = f"{moment.microsecond:06d}"
        text += "." + (digits[:3] if digits.endswith("000") else digits)
    return text + "Z"


def state_metadata(found: File | Batch) -> dict[str, str]:
    """The state found, as metadata: what a caller needs to understand the refusal."""
    metadata = {"status": found.status.value, "revision": str(found.revision)}
    if isinstance(found, File):
        metadata["file_id"] = found.file_id
    else:
        metadata["batch_id"] = found.batch_id
    if found.cancelled_at is not None:
        metadata["cancelled_at"] = timestamp_text(found.cancelled_at)
        metadata["cancelled_by"] = found.cancelled_by
    if isinstance(found, File) and found.content_deleted_at is not None:
        metadata["content_deleted_at"] = timestamp_text(found.content_deleted_at)
        metadata["content_deleted_by"] = found.content_deleted_by
    return metadata


class NotInState(UploadError):
    """What was asked is not possible in the state found; nothing was changed."""

    def __init__(self, message: str, found: File | Batch) -> None:
        super().__init__(message, state_metadata(found))
        self.found = found


class FileNotCancellable(NotInState):
    """The file is final."""

    reason = "FILE_NOT_CANCELLABLE"

    def __init__(self, file: File) -> None:
        super().__init__(f"The file is {file.status.value} and can no longer be cancelled", file)


class BatchNotCancellable(NotInState):
    """The batch is final."""

    reason = "BATCH_NOT_CANCELLABLE"

    def __init__(self, batch: Batch) -> None:
        super().__init__(f"The batch is {batch.status.value} and can no longer be cancelled", batch)


class FileNotWritable(NotInState):
    """An upload was opened on a final file."""

    reason = "FILE_NOT_WRITABLE"

    def __init__(self, file: File) -> None:
        super().__init__(f"The file is {file.status.value} and takes no more bytes", file)
        self.file = file


class FileNotCompleted(NotInState):
    """Its bytes were asked for, or their end, and they are not all there."""

    reason = "FILE_NOT_COMPLETED"

    def __init__(self, file: File) -> None:
        super().__init__(f"The file is {file.status.value}; only a completed one has bytes to read", file)


class ContentDeleted(NotInState):
    """The file is completed, and its bytes were let go."""

    reason = "CONTENT_DELETED"

    def __init__(self, file: File) -> None:
        super().__init__("The bytes of this file were let go", file)


class Stopped(UploadError):
    """The stream has to end, whatever its sender does; carried by its Ending."""


class UploadCancelled(Stopped):
    """The file was cancelled under the stream."""

    reason = "UPLOAD_CANCELLED"

    def __init__(self, file: File) -> None:
        super().__init__("The upload was cancelled", state_metadata(file))
        self.file = file


class WriterReplaced(Stopped):
    """A newer stream took the file over."""

    reason = "WRITER_REPLACED"

    def __init__(self, file_id: str) -> None:
        super().__init__("A newer stream took this file over", {"file_id": file_id})


class UploadIdle(Stopped):
    """No byte came for too long, or fewer than ``least_bytes``; the file stays resumable."""

    reason = "UPLOAD_IDLE"
    retry_after_seconds = 1.0

    def __init__(self, file_id: str, seconds: float, least_bytes: int = 0) -> None:
        came = f"Fewer than {least_bytes} bytes came in" if least_bytes > 1 else "No byte came for"
        super().__init__(f"{came} {seconds:g} s; the upload can be resumed", {"file_id": file_id})


class ShuttingDown(Stopped):
    """The server is draining."""

    reason = "SHUTTING_DOWN"
    retry_after_seconds = 1.0

    def __init__(self, why: str = "The server is shutting down") -> None:
        super().__init__(f"{why}; try again on another node or later")


class CutOff(ShuttingDown):
    """The node has not reached the database for so long that others may take it for dead."""

    def __init__(self) -> None:
        super().__init__("This node does not reach its database")


class OffsetMismatch(UploadError):
    """The stream's offset is not where the file's durable bytes end."""

    reason = "OFFSET_MISMATCH"

    def __init__(self, file_id: str, offset: int, expected: int) -> None:
        super().__init__(
            f"The offset is {offset} but must be {expected}",
            {"file_id": file_id, "offset": str(offset), "expected_offset": str(expected)},
        )


class UploadIncomplete(UploadError):
    """A commit came before all bytes."""

    reason = "UPLOAD_INCOMPLETE"

    def __init__(self, file_id: str, received: int, size: int) -> None:
        super().__init__(
            f"Only {received} of {size} bytes were received; the upload can be resumed",
            {"file_id": file_id, "bytes_received": str(received), "size_bytes": str(size)},
        )


class SizeExceeded(UploadError):
    """A message would pass the announced size; it was dropped whole."""

    reason = "SIZE_EXCEEDED"

    def __init__(self, file_id: str, received: int, size: int) -> None:
        super().__init__(
            f"The file was announced with {size} bytes; a message that passes them was dropped",
            {"file_id": file_id, "bytes_received": str(received), "size_bytes": str(size)},
        )


class ChecksumMismatch(UploadError):
    """The bytes are not those that were announced; the file is failed."""

    reason = "CHECKSUM_MISMATCH"

    def __init__(self, file_id: str, expected: str, actual: str) -> None:
        super().__init__(
            "The SHA-256 of the received bytes is not the one given; the file is failed",
            {"file_id": file_id, "expected_sha256": expected, "actual_sha256": actual},
        )


class UnexpectedMessage(UploadError):
    """A message out of order, or one that is none."""

    reason = "UNEXPECTED_MESSAGE"


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One field that breaks one rule; ``field`` is a path such as ``files[3].filename``.

    ``limit`` is the bound that it goes past, where the rule is a bound.
    """

    field: str
    description: str
    limit: int | None = None


class InvalidField(UploadError):
    """The request breaks the rules of some fields; nothing was changed."""

    reason = "INVALID_FIELD"

    def __init__(self, violations: Sequence[FieldViolation]) -> None:
        first = violations[0]
        bound = {} if first.limit is None else {"limit": str(first.limit)}
        super().__init__(f"{first.field}: {first.description}", {"field": first.field, **bound})
        self.violations = tuple(violations)


class RequestIdReused(UploadError):
    """The request id came before with another request."""

    reason = "REQUEST_ID_REUSED"

    def __init__(self, request_id: str) -> None:
        super().__init__("This request_id came before with another request", {"request_id": request_id})


class BodyTooLarge(UploadError):
    """An HTTP body over the limit."""

    reason = "BODY_TOO_LARGE"


class Overloaded(UploadError):
    """No room for this kind of call right now."""

    reason = "OVERLOADED"

    def __init__(self, message: str, retry_after_seconds: float) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class RateExceeded(Overloaded):
    """A principal calls more often than it may: ``rate`` a second of calls, or of cancels, which have their own."""

    reason = "RATE_EXCEEDED"

    def __init__(self, limit: str, rate: float, retry_after_seconds: float) -> None:
        super().__init__(f"You may make {rate:g} {limit} a second", max(0.001, retry_after_seconds))
        self.metadata = {"limit": limit, "rate": f"{rate:g}"}


class QuotaExceeded(UploadError):
    """A principal has as much of something as it may have; only what it gives back makes room."""

    reason = "QUOTA_EXCEEDED"

    def __init__(self, principal: str, limit: str, most: int, used: int) -> None:
        self.principal = principal
        metadata = {"limit": limit, "quota": str(most), "used": str(used)}
        super().__init__(f"Your quota of {limit} is {most}, and you have {used}", metadata)


class StorageFull(UploadError):
    """The room left is kept for cancels, expiry and completions; what can wait, an announcement or bytes, is refused.

    ``limit`` is what has no room left: ``disk`` or ``max_database_bytes``; ``kept`` and ``bound`` are bytes.
    """

    reason = "STORAGE_FULL"

    def __init__(self, limit: str, kept: int | None = None, bound: int | None = None) -> None:
        metadata = {"limit": limit}
        if kept is not None:
            metadata["kept_bytes"] = str(kept)
        if bound is not None:
            metadata["limit_bytes"] = str(bound)
        where = "The disk" if limit == "disk" else f"The database ({limit})"
        super().__init__(f"{where} has no room for more: what is left is kept for cancels and open uploads", metadata)


class NotIdentified(UploadError):
    """It is not known who calls. ``why`` is for the operator's log, never for the caller."""

    why: str = ""


class CredentialMissing(NotIdentified):
    """The call carries no credential, and needs one."""

    reason = "CREDENTIAL_MISSING"

    def __init__(self) -> None:
        super().__init__("This call needs a credential: Authorization: Bearer …")


class CredentialInvalid(NotIdentified):
    """The credential is none, or none any more."""

    reason = "CREDENTIAL_INVALID"

    def __init__(self, why: str = "", credential: str = "") -> None:
        super().__init__("The credential is not valid")
        self.why = why
        self.credential = credential


class CredentialLost(Stopped, CredentialInvalid):
    """The credential was valid when the stream began, and was taken back."""

    def __init__(self, credential: str) -> None:
        CredentialInvalid.__init__(self, "revoked", credential)


class CredentialExpired(NotIdentified):
    """The credential was valid, and its time is over; a watch goes on by its token with a new one."""

    reason = "CREDENTIAL_EXPIRED"

    def __init__(self, credential: str = "") -> None:
        super().__init__("The credential has expired; go on with a new one")
        self.credential = credential


class PermissionDenied(UploadError):
    """The caller is known and may not do this; ``scope`` is what would let it, in the words of a JWT."""

    reason = "PERMISSION_DENIED"

    def __init__(self, scope: str) -> None:
        super().__init__("This caller may not do this", {"scope": scope})
        self.scope = scope


class DatabaseFailure(UploadError):
    """The database could not commit; nothing was changed."""

    reason = "DATABASE_FAILURE"

    def __init__(self) -> None:
        super().__init__("The database could not answer, or not take the change; nothing was changed")


class StorageFailure(UploadError):
    """The byte store could not take or give bytes; nothing was changed."""

    reason = "STORAGE_FAILURE"

    def __init__(self) -> None:
        super().__init__("The storage could not take or give the bytes; what was durable before stays")


class OutcomeUnknown(UploadError):
    """Whether the change was committed cannot be told now."""

    reason = "OUTCOME_UNKNOWN"

    def __init__(self) -> None:
        super().__init__("It is not known whether the change was made; ask again with the same request_id")


class InternalError(UploadError):
    """Anything else; the log has the same incident id."""

    reason = "INTERNAL"

    def __init__(self, incident: str) -> None:
        super().__init__("Internal error", {"incident": incident})
