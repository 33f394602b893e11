"""Decides how a domain error is said as a google.rpc.Status: the one table of codes.

Must not know which call failed. What is not in the table is INTERNAL with a fixed text.
"""

from __future__ import annotations

from collections.abc import Mapping

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc.code_pb2 import Code
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, PreconditionFailure, QuotaFailure, RetryInfo
from google.rpc.status_pb2 import Status

from transcoder.status import HTTP_STATUS
from upload_server.domain import errors

DOMAIN = "upload.v1"

# Looked up along the class order, so a new reason inherits the code of its family.
_CODES: dict[type[errors.UploadError], Code] = {
    errors.NotFound: Code.NOT_FOUND,
    errors.NotInState: Code.FAILED_PRECONDITION,
    errors.OffsetMismatch: Code.FAILED_PRECONDITION,
    errors.UploadIncomplete: Code.FAILED_PRECONDITION,
    errors.UploadCancelled: Code.ABORTED,
    errors.WriterReplaced: Code.ABORTED,
    errors.SizeExceeded: Code.OUT_OF_RANGE,
    errors.ChecksumMismatch: Code.INVALID_ARGUMENT,
    errors.UnexpectedMessage: Code.INVALID_ARGUMENT,
    errors.InvalidField: Code.INVALID_ARGUMENT,
    errors.RequestIdReused: Code.INVALID_ARGUMENT,
    errors.BodyTooLarge: Code.RESOURCE_EXHAUSTED,
    errors.Overloaded: Code.RESOURCE_EXHAUSTED,
    errors.QuotaExceeded: Code.RESOURCE_EXHAUSTED,
    errors.StorageFull: Code.RESOURCE_EXHAUSTED,
    errors.NotIdentified: Code.UNAUTHENTICATED,
    errors.PermissionDenied: Code.PERMISSION_DENIED,
    errors.UploadIdle: Code.UNAVAILABLE,
    errors.ShuttingDown: Code.UNAVAILABLE,
}

# Reasons whose HTTP status is not the one of their code.
HTTP_STATUSES: Mapping[str, int] = {errors.StorageFull.reason: 507, errors.BodyTooLarge.reason: 413}
# A gRPC code by its number.
STATUS_CODES: Mapping[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}

# Details stay under 4 KiB, or the metadata limit of HTTP/2 clients replaces our answer by its own.
_MAX_VIOLATIONS = 8
_MAX_TEXT = 256


def _clip(text: str) -> str:
    return text if len(text) <= _MAX_TEXT else text[: _MAX_TEXT - 1] + "…"


def code_of(error: errors.UploadError) -> Code:
    """Return the gRPC code that says ``error``."""
    for family in type(error).__mro__:
        if family in _CODES:
            return _CODES[family]
    return Code.INTERNAL


def challenge(error: errors.UploadError) -> str:
    """Return what ``WWW-Authenticate`` says to a caller who is refused for a credential or a right; else empty."""
    match error:
        case errors.CredentialMissing():
            return 'Bearer realm="upload"'
        case errors.NotIdentified():
            return 'Bearer realm="upload", error="invalid_token"'
        case errors.PermissionDenied(scope=scope):
            return f'Bearer realm="upload", error="insufficient_scope", scope="{scope}"'
    return ""


def http_status_of(error: errors.UploadError) -> int:
    """Return the HTTP status that says ``error``."""
    return HTTP_STATUSES.get(error.reason, HTTP_STATUS[STATUS_CODES[code_of(error)]])


def _details(error: errors.UploadError, more: Mapping[str, str]) -> list[Message]:
    metadata = {key: _clip(value) for key, value in {**error.metadata, **more}.items()}
    details: list[Message] = [ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=metadata)]
    match error:
        case errors.InvalidField(violations=violations):
            details.append(
                BadRequest(
                    field_violations=[
                        BadRequest.FieldViolation(field=_clip(v.field), description=_clip(v.description))
                        for v in violations[:_MAX_VIOLATIONS]
                    ]
                )
            )
        case errors.QuotaExceeded(principal=principal):
            broken = QuotaFailure.Violation(
                subject=_clip(f"principal:{principal}"),
                description=_clip(str(error)),
                quota_metric=error.metadata["limit"],
                quota_value=int(error.metadata["quota"]),
            )
            details.append(QuotaFailure(violations=[broken]))
        case errors.NotInState(found=found):
            violation = PreconditionFailure.Violation(
                type="STATUS",
                subject=metadata.get("file_id") or metadata.get("batch_id", ""),
                description=f"is {found.status.value}",
            )
            details.append(PreconditionFailure(violations=[violation]))
    if error.retry_after_seconds is not None:
        delay = Duration()
        delay.FromMilliseconds(int(error.retry_after_seconds * 1000))
        details.append(RetryInfo(retry_delay=delay))
    return details


def pack(details: list[Message]) -> list[Any]:
    """Return ``details`` as a Status carries them."""
    packed = []
    for detail in details:
        box = Any()
        box.Pack(detail)
        packed.append(box)
    return packed


def to_status(error: errors.UploadError, **more: str) -> Status:
    """Return ``error`` as a Status with its details; ``more`` is added to its metadata."""
    return Status(code=code_of(error), message=_clip(str(error)), details=pack(_details(error, more)))
