"""Decides how errors of the transcoder itself say their reason: the contract's words, on top of code and message.

Must not know how the transcoder found them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo

from transcoder import Fault, FaultKind
from upload_server.doors.errors import DOMAIN

# Whatever is wrong with the request's text is a field that breaks a rule; the rest keeps the transcoder's own word.
_REASONS: Mapping[FaultKind, str] = {
    FaultKind.MALFORMED_PATH: "INVALID_FIELD",
    FaultKind.MALFORMED_JSON: "INVALID_FIELD",
    FaultKind.INVALID_HEADER: "INVALID_FIELD",
    FaultKind.UNEXPECTED: "INTERNAL",
    FaultKind.UNPRINTABLE: "INTERNAL",
}
# Where a fault names no field.
_PLACES: Mapping[FaultKind, str] = {
    FaultKind.MALFORMED_PATH: "path",
    FaultKind.MALFORMED_JSON: "body",
    FaultKind.INVALID_FIELD: "body",
    FaultKind.INVALID_HEADER: "header",
}
_MAX_TEXT = 256


def fault_details(fault: Fault) -> Sequence[Message]:
    """Return the details of a fault's Status: an ErrorInfo, and a BadRequest where a field is wrong, or a RetryInfo."""
    reason = _REASONS.get(fault.kind, fault.kind.value)
    field = (fault.field or _PLACES.get(fault.kind, ""))[:_MAX_TEXT]
    metadata = {"field": field} if field else {}
    if fault.limit is not None:
        metadata["limit"] = str(fault.limit)
    details: list[Message] = [ErrorInfo(reason=reason, domain=DOMAIN, metadata=metadata)]
    if reason == "INVALID_FIELD":
        description = (fault.description or fault.message)[:_MAX_TEXT]
        violation = BadRequest.FieldViolation(field=field, description=description)
        details.append(BadRequest(field_violations=[violation]))
    if fault.kind is FaultKind.OVERLOADED:
        details.append(RetryInfo(retry_delay=Duration(seconds=1)))
    return details
