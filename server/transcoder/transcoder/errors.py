"""Decides what can go wrong while transcoding, as values and exceptions.

Must not know ASGI or how an error is printed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import grpc
from google.protobuf.message import Message


class TranscodingConfigError(ValueError):
    """A service cannot be transcoded as it is declared; raised when the app is built."""


class FieldError(Exception):
    """A value does not fit the field it is meant for. The text never holds the value."""

    def __init__(self, reason: str, path: str = "", limit: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.path = path
        self.limit = limit

    def under(self, step: str) -> "FieldError":
        """The same error, seen from the message that holds `step` (a field, `[0]` or `["key"]`)."""
        joint = "." if self.path and not self.path.startswith("[") else ""
        self.path = step + joint + self.path
        return self


class FaultKind(StrEnum):
    """Why the transcoder itself refused or ended a call."""

    NOT_FOUND = "NOT_FOUND"
    METHOD_NOT_ALLOWED = "METHOD_NOT_ALLOWED"
    MALFORMED_PATH = "MALFORMED_PATH"
    URL_TOO_LONG = "URL_TOO_LONG"
    BODY_TOO_LARGE = "BODY_TOO_LARGE"
    BODY_TIMEOUT = "BODY_TIMEOUT"
    OVERLOADED = "OVERLOADED"
    UNSUPPORTED_ENCODING = "UNSUPPORTED_ENCODING"
    MALFORMED_JSON = "MALFORMED_JSON"
    INVALID_FIELD = "INVALID_FIELD"
    INVALID_HEADER = "INVALID_HEADER"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    CANCELLED = "CANCELLED"
    UNPRINTABLE = "UNPRINTABLE"
    UNEXPECTED = "UNEXPECTED"


_FAULTS: dict[FaultKind, tuple[grpc.StatusCode, int]] = {
    FaultKind.NOT_FOUND: (grpc.StatusCode.NOT_FOUND, 404),
    FaultKind.METHOD_NOT_ALLOWED: (grpc.StatusCode.UNIMPLEMENTED, 405),
    FaultKind.MALFORMED_PATH: (grpc.StatusCode.INVALID_ARGUMENT, 400),
    FaultKind.URL_TOO_LONG: (grpc.StatusCode.INVALID_ARGUMENT, 414),
    FaultKind.BODY_TOO_LARGE: (grpc.StatusCode.RESOURCE_EXHAUSTED, 413),
    FaultKind.BODY_TIMEOUT: (grpc.StatusCode.DEADLINE_EXCEEDED, 408),
    FaultKind.OVERLOADED: (grpc.StatusCode.RESOURCE_EXHAUSTED, 429),
    FaultKind.UNSUPPORTED_ENCODING: (grpc.StatusCode.INVALID_ARGUMENT, 415),
    FaultKind.MALFORMED_JSON: (grpc.StatusCode.INVALID_ARGUMENT, 400),
    FaultKind.INVALID_FIELD: (grpc.StatusCode.INVALID_ARGUMENT, 400),
    FaultKind.INVALID_HEADER: (grpc.StatusCode.INVALID_ARGUMENT, 400),
    FaultKind.DEADLINE_EXCEEDED: (grpc.StatusCode.DEADLINE_EXCEEDED, 504),
    FaultKind.CANCELLED: (grpc.StatusCode.CANCELLED, 499),
    FaultKind.UNPRINTABLE: (grpc.StatusCode.INTERNAL, 500),
    FaultKind.UNEXPECTED: (grpc.StatusCode.UNKNOWN, 500),
}


@dataclass(frozen=True, slots=True)
class Fault:
    """An error that the transcoder made itself, not the servicer."""

    kind: FaultKind
    message: str
    """The message that the client gets."""
    field: str = ""
    """The request field it is about, for INVALID_FIELD."""
    description: str = ""
    """What is wrong with that field."""
    limit: int | None = None
    """The bound that the request goes past, where that is what is wrong."""

    @property
    def code(self) -> grpc.StatusCode:
        """The gRPC code of the answer."""
        return _FAULTS[self.kind][0]

    @property
    def http_status(self) -> int:
        """The HTTP status of the answer."""
        return _FAULTS[self.kind][1]


class FaultError(Exception):
    """Carries a Fault up to the place that answers."""

    def __init__(self, kind: FaultKind, message: str, *, unread: bool = False, limit: int | None = None) -> None:
        super().__init__(message)
        self.fault = Fault(kind, message, limit=limit)
        self.unread = unread
        """Whether more of the request's body is on its way."""

    @classmethod
    def of_field(cls, error: FieldError) -> "FaultError":
        """The answer to a value that does not fit its field."""
        where = f"field {error.path!r}" if error.path else "request"
        self = cls(FaultKind.INVALID_FIELD, f"invalid {where}: {error.reason}")
        self.fault = Fault(FaultKind.INVALID_FIELD, str(self), error.path, error.reason, error.limit)
        return self


ErrorDetails = Callable[[Fault], Sequence[Message]]
"""Gives the `details` of an error that the transcoder makes itself."""


def no_details(_fault: Fault) -> Sequence[Message]:
    """The default: such errors carry no details."""
    return ()
