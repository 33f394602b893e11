"""Decides how an outcome of a call is written: HTTP status, and google.rpc.Status as JSON.

Must not know ASGI, nor how the call came to its end.
"""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2
from google.rpc.status_pb2 import Status

from .errors import ErrorDetails, Fault
from .jsontext import quoted
from .printer import JsonPrinter, print_bytes

Metadata = Sequence[tuple[str, str | bytes]]

_log = logging.getLogger(__name__)
# Imported for its types alone: the usual details can then be printed, whoever made them.
STANDARD_DETAILS: Final = error_details_pb2.DESCRIPTOR

DETAILS_KEY: Final = "grpc-status-details-bin"

HTTP_STATUS: Final[dict[grpc.StatusCode, int]] = {
    grpc.StatusCode.OK: 200,
    grpc.StatusCode.CANCELLED: 499,
    grpc.StatusCode.UNKNOWN: 500,
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.ABORTED: 409,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.INTERNAL: 500,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DATA_LOSS: 500,
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a call ended, other than with a response."""

    code: grpc.StatusCode
    message: str = ""
    details: Sequence[Any] = ()
    """google.protobuf.Any messages."""
    http_status: int = 0
    headers: tuple[tuple[bytes, bytes], ...] = field(default=())
    metadata: Metadata = ()
    trailing: Metadata = ()

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.http_status or HTTP_STATUS[self.code]

    @property
    def reason(self) -> str:
        """The reason in an ErrorInfo among the details, if there is one."""
        for detail in self.details:
            if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
                return str(error_details_pb2.ErrorInfo.FromString(detail.value).reason)
        return ""

    @property
    def retry_after_seconds(self) -> float | None:
        """How long a RetryInfo among the details asks to wait."""
        for detail in self.details:
            if detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
                delay = error_details_pb2.RetryInfo.FromString(detail.value).retry_delay
                return float(delay.seconds + delay.nanos / 1e9)
        return None


def pack_details(details: Iterable[Message]) -> list[Any]:
    """Messages as Any; what is one already stays as it is."""
    packed = []
    for detail in details:
        if isinstance(detail, AnyMessage):
            packed.append(detail)
        else:
            holder = AnyMessage()
            holder.Pack(detail)
            packed.append(holder)
    return packed


def details_of(trailing: Metadata) -> Sequence[Any]:
    """The details in `grpc-status-details-bin`; none where the bytes are no Status."""
    for key, value in trailing:
        if key == DETAILS_KEY and isinstance(value, bytes):
            try:
                return list(Status.FromString(value).details)
            except DecodeError:
                return ()
    return ()


class StatusWriter:
    """Prints outcomes; knows the message types that details may be of."""

    def __init__(self, printers: Sequence[JsonPrinter], error_details: ErrorDetails) -> None:
        self._printers = printers
        self._error_details = error_details

    def outcome(self, fault: Fault) -> Outcome:
        """An error of the transcoder's own, with the details that the service adds."""
        try:
            details = pack_details(self._error_details(fault))
        except Exception:  # noqa: BLE001 - the error itself must still be told
            _log.exception("error_details failed for %s", fault.kind)
            details = []
        return Outcome(fault.code, fault.message, details, fault.http_status)

    def text(self, outcome: Outcome) -> str:
        """The Status as JSON; `details` is there even when it is empty."""
        details = ",".join(self._detail(detail) for detail in outcome.details)
        number = outcome.code.value[0]
        return f'{{"code":{number},"message":{quoted(outcome.message)},"details":[{details}]}}'

    def body(self, outcome: Outcome) -> bytes:
        """The same as bytes, whatever text the servicer gave."""
        return self.text(outcome).encode(errors="replace")

    def _detail(self, detail: Any) -> str:
        """A detail that cannot be understood is printed as its bytes: it must never hide the error."""
        for printer in self._printers:
            try:
                return printer.print_any(detail)
            except Exception:  # noqa: BLE001, S112 - the next pool may know the type
                continue
        return f'{{"@type":{quoted(detail.type_url)},"value":{print_bytes(detail.value)}}}'
