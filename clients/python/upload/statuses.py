"""Turns what gRPC raises into this client's exceptions, and messages into facts: the boundary to the wire.

Must not know what the client does about an error.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Protocol

import grpc
from google.protobuf import timestamp_pb2
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2
from grpc import StatusCode

from upload import errors
from upload.v1.upload_pb2 import BatchStatus, File, UploadStatus, UploadStopped

_DOMAIN = "upload.v1"
_DETAILS_KEY = "grpc-status-details-bin"
_FINAL = (
    UploadStatus.UPLOAD_STATUS_COMPLETED,
    UploadStatus.UPLOAD_STATUS_FAILED,
    UploadStatus.UPLOAD_STATUS_CANCELLED,
)
_BATCH_STATUSES = {
    "": BatchStatus.BATCH_STATUS_UNSPECIFIED,
    "pending": BatchStatus.BATCH_STATUS_PENDING,
    "processing": BatchStatus.BATCH_STATUS_PROCESSING,
    "completed": BatchStatus.BATCH_STATUS_COMPLETED,
    "failed": BatchStatus.BATCH_STATUS_FAILED,
    "cancelled": BatchStatus.BATCH_STATUS_CANCELLED,
}
_STATUSES = (UploadStatus.UPLOAD_STATUS_PENDING, UploadStatus.UPLOAD_STATUS_UPLOADING, *_FINAL)


class RpcFailure(Protocol):
    """What synchronous and asynchronous gRPC errors have in common."""

    def code(self) -> StatusCode: ...  # noqa: D102
    def details(self) -> str | None: ...  # noqa: D102
    def trailing_metadata(self) -> Iterable[tuple[str, str | bytes]] | None: ...  # noqa: D102


def status_word(status: UploadStatus) -> str:
    """Return the contract's lower-case word, such as ``cancelled``."""
    return UploadStatus.Name(status).removeprefix("UPLOAD_STATUS_").lower()


def status_number(word: str) -> UploadStatus:
    """Return the enum's member for a lower-case word, unspecified for none; raises ``ValueError``."""
    if not word:
        return UploadStatus.UPLOAD_STATUS_UNSPECIFIED
    for status in _STATUSES:
        if status_word(status) == word:
            return status
    raise ValueError(f"{word!r} is no status of a file: use {', '.join(map(status_word, _STATUSES))}")


def batch_status_number(word: str) -> BatchStatus:
    """Return the enum's member for a lower-case word, unspecified for none; raises ``ValueError``."""
    found = _BATCH_STATUSES.get(word)
    if found is None:
        raise ValueError(f"{word!r} is no status of a batch: use {', '.join(filter(None, _BATCH_STATUSES))}")
    return found


def is_final(status: UploadStatus) -> bool:
    """Whether nothing can follow."""
    return status in _FINAL


def moment(timestamp: timestamp_pb2.Timestamp) -> datetime:
    """Return a timestamp as an aware UTC datetime."""
    return timestamp.ToDatetime(tzinfo=UTC)


def error_from(failure: RpcFailure) -> errors.UploadServiceError:
    """Return the exception for a failed call: by the server's reason, else by the gRPC code."""
    info, retry_after, message = _details(failure)
    code = failure.code()
    text = message or failure.details() or code.name
    if info is None:
        return _without_info(code, text)
    kind = errors.BY_REASON.get(info.reason, errors.UploadServiceError)
    return kind(text, reason=info.reason, metadata=info.metadata, code=code, retry_after=retry_after)


def _details(failure: RpcFailure) -> tuple[error_details_pb2.ErrorInfo | None, float | None, str]:
    """Read ``google.rpc.Status`` from the trailers; a damaged one counts as absent."""
    status = status_pb2.Status()
    for key, value in failure.trailing_metadata() or ():
        if key == _DETAILS_KEY and isinstance(value, bytes):
            try:
                status.ParseFromString(value)
            except DecodeError:
                return None, None, ""
    found: error_details_pb2.ErrorInfo | None = None
    retry_after: float | None = None
    for detail in status.details:
        info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
        if detail.Unpack(info) and info.domain == _DOMAIN:
            found = info
        elif detail.Unpack(retry):
            retry_after = retry.retry_delay.ToTimedelta().total_seconds()
    return found, retry_after, status.message


def _without_info(code: StatusCode, text: str) -> errors.UploadServiceError:
    if code is StatusCode.UNAVAILABLE:
        return errors.ServerUnreachable(_unreachable(text), code=code)
    if code is StatusCode.DEADLINE_EXCEEDED:
        return errors.DeadlineExceeded("The server did not answer in time", code=code)
    if code in {StatusCode.UNAUTHENTICATED, StatusCode.PERMISSION_DENIED}:
        return errors.AccessDenied(f"The server refused access: {text}", code=code)
    if code is StatusCode.UNIMPLEMENTED:
        return errors.UploadServiceError("What answers there is no upload service of this version", code=code)
    return errors.UploadServiceError(f"The call failed with {code.name}: {text}", code=code)


def _unreachable(text: str) -> str:
    # gRPC has no code for a bad certificate: its words are the only sign, and they only choose the words here.
    lower = text.lower()
    if "http1.x" in lower or "parsing http/2" in lower:
        return "What answers there speaks HTTP/1.1, not gRPC: ask for the service's gRPC port (50051 by default)"
    if "wrong_version_number" in lower:
        return "The server speaks plain text at this port: leave out https://, or ask for its port for TLS"
    if "failed to connect" in lower and ("socket closed" in lower or "reset by peer" in lower):
        return "The server closed the connection at once: if it speaks TLS, name it as https://HOST:PORT"
    if "certificate_verify_failed" in lower:
        return "The server's certificate is not signed by whom this client trusts, or is not for this name"
    if "handshake" in lower or "certificate" in lower:
        return "No secure connection to the server: its certificate or protocol was not accepted"
    if "refused" in lower:
        return "The server cannot be reached: connection refused"
    if "dns" in lower or "name resolution" in lower or "address lookup" in lower:
        return "The server cannot be reached: its name is not known"
    return "The server cannot be reached, or the connection broke"


def by_whom(cancelled_by: str) -> str:
    """Say for people who cancelled; the reason behind it says what a page did, or what became of its connection."""
    words = {
        "websocket_close": "with its page's connection",
        "batch_cancel": "with its batch",
        "all_files": "with its files",
    }
    return words.get(cancelled_by, f"by {cancelled_by or 'someone'}")


def upload_cancelled(file: File) -> errors.UploadCancelled:
    """Return the exception for a cancelled file."""
    return errors.UploadCancelled(
        f"The upload was cancelled {by_whom(file.cancelled_by)}" + _why(file.cancel_reason),
        metadata=_cancel_facts(file.file_id, file.cancelled_at, file.cancelled_by, file.cancel_reason),
        code=StatusCode.ABORTED,
    )


def upload_stopped(file_id: str, stopped: UploadStopped) -> errors.UploadCancelled:
    """Return the exception for a stream that got ``stopped``."""
    return errors.UploadCancelled(
        f"The upload was cancelled {by_whom(stopped.cancelled_by)}" + _why(stopped.cancel_reason),
        metadata=_cancel_facts(file_id, stopped.cancelled_at, stopped.cancelled_by, stopped.cancel_reason),
        code=StatusCode.ABORTED,
    )


def upload_failed(file: File) -> errors.UploadFailed:
    """Return the exception for a failed file."""
    facts = {"file_id": file.file_id, "status": "failed", "failure_reason": file.failure_reason}
    if file.failure_reason == "checksum_mismatch":
        return errors.ChecksumMismatch(
            "The bytes received are not those that were announced; the file is failed", metadata=facts
        )
    return errors.UploadFailed(f"The upload failed: {file.failure_reason or 'unknown reason'}", metadata=facts)


def _why(reason: str) -> str:
    return f" ({reason})" if reason else ""


def _cancel_facts(file_id: str, at: timestamp_pb2.Timestamp, by: str, reason: str) -> dict[str, str]:
    return {
        "file_id": file_id,
        "status": "cancelled",
        "cancelled_at": at.ToJsonString(),
        "cancelled_by": by,
        "cancel_reason": reason,
    }


def as_failure(error: grpc.RpcError) -> RpcFailure:
    """Narrow gRPC's bare base class to what each of its real errors is."""
    failure: RpcFailure = error  # type: ignore[assignment]  # every RpcError raised by a call is a Call too
    return failure
