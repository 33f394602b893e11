"""Decides how one rule turns body, query and path into a request, and what of a response is sent.

Must not know how rules are found or checked: all parts come compiled.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from .binder import FieldPath, FieldTables
from .errors import FaultError, FieldError
from .options import RequestLimits
from .parser import JsonParser
from .printer import JsonPrinter
from .template import Template

ReadBody = Callable[[Message, bytearray, str], Iterable[None]]
"""Reads body and content type into a request; a long body while it is iterated, a piece at each step."""
BindQuery = Callable[[Message, str], None]
"""Reads a query string into a request."""


@dataclass(frozen=True, slots=True)
class Codec:
    """How one pool's messages are read and printed."""

    parser: JsonParser
    printer: JsonPrinter
    tables: FieldTables


@dataclass(frozen=True, slots=True)
class Method:
    """One RPC with the servicer's function for it."""

    name: str
    """`/package.Service/Method`, as gRPC calls it."""
    handler: Callable[..., Any]
    request_class: type[Message]
    response: Descriptor
    response_class: type[Message]
    streams: bool
    limits: RequestLimits
    sse_id: Callable[[Any], str] | None = None
    sse_resume: FieldPath | None = None


@dataclass(frozen=True, slots=True)
class ResponseForm:
    """What of a response message is sent, and how."""

    to_text: Callable[[Any], str]
    to_body: Callable[[Any], Any] | None = None
    """For HttpBody: the part of the response that is one, sent as it is."""
    to_pieces: Callable[[Any], Iterator[str]] | None = None
    """For messages that hold lists: the same text in pieces, none of which takes long."""


@dataclass(frozen=True, slots=True)
class Binding:
    """One HTTP rule of one method, compiled."""

    method: Method
    http_method: str
    template: Template
    path_fields: tuple[FieldPath, ...]
    bind_query: BindQuery | None
    read_body: ReadBody | None
    raw_body: bool
    response: ResponseForm

    def complete(self, message: Message, values: Sequence[str], query: str) -> None:
        """Sets what query and path say, after the body, so that the path wins."""
        if query and self.bind_query is not None:
            self.bind_query(message, query)
        try:
            for field, value in zip(self.path_fields, values, strict=True):
                field.set(message, value)
        except FieldError as error:
            raise FaultError.of_field(error) from None
        if not self.method.request_class.IsInitialized(message):
            raise FaultError.of_field(FieldError("a required field is missing"))
