"""Decides which error answers an operation can give, from the reasons its proto comment names.

Reasons, codes and HTTP statuses are the server's own tables: the document cannot differ from the service.
"""

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

import grpc
from google.rpc.code_pb2 import Code

from transcoder import Fault, FaultKind
from transcoder.status import HTTP_STATUS
from upload_server.domain import errors
from upload_server.doors.errors import HTTP_STATUSES, code_of

Json = dict[str, Any]

_REASON = re.compile(r"`([A-Z]+(?:_[A-Z]+)*)`")
STATUS_SCHEMA = {"$ref": "#/components/schemas/google.rpc.Status"}

# What the door refuses before a method hears of it: reason, HTTP status, when.
_AT_THE_DOOR = {
    "MALFORMED_REQUEST": (400, "This is no HTTP/1.1 request, or its URL is longer than 64 KiB."),
    "HEAD_TOO_LARGE": (431, "The URL and the headers are longer than 64 KiB."),
    "HOST_NOT_ALLOWED": (403, "On a loopback bind the `Host` header must be a loopback name."),
    "ORIGIN_NOT_ALLOWED": (
        403,
        "A page of another origin asked for a change; `--allowed-origins` names those that may.",
    ),
    "UPGRADE_REQUIRED": (426, "A plain request; this path takes WebSocket handshakes."),
}
_FAULTS = {
    FaultKind.BODY_TIMEOUT: "The body did not come in time.",
    FaultKind.BODY_TOO_LARGE: "The body is over `--max-message-bytes`, 8 MiB by default.",
    FaultKind.URL_TOO_LONG: "The URL is longer than 64 KiB.",
    FaultKind.UNSUPPORTED_ENCODING: "The body has a `Content-Encoding`.",
    FaultKind.DEADLINE_EXCEEDED: "The time that `Grpc-Timeout` or the server gives a call was over.",
}


def _subclasses(family: type[errors.UploadError]) -> Iterator[type[errors.UploadError]]:
    for subclass in family.__subclasses__():
        yield subclass
        yield from _subclasses(subclass)


def _table() -> dict[str, tuple[int, str]]:
    """HTTP status and meaning of every reason."""
    table = dict(_AT_THE_DOOR)
    for kind, meaning in _FAULTS.items():
        table[kind.value] = (Fault(kind, "").http_status, meaning)
    for error in _subclasses(errors.UploadError):
        if "reason" in vars(error) and error.reason not in table:
            code = Code.Name(code_of(error.__new__(error)))
            status = HTTP_STATUSES.get(error.reason, HTTP_STATUS[grpc.StatusCode[code]])
            table[error.reason] = (status, (error.__doc__ or "").splitlines()[0])
    return table


REASONS = _table()


def reasons_in(comment: str) -> list[str]:
    """The reasons that a comment names after "Errors:" or "can fail with", in its order."""
    _, _, text = comment.partition("can fail with" if "can fail with" in comment else "Errors:")
    return [reason for reason in _REASON.findall(text) if reason in REASONS]


def responses(reasons: Iterable[str], examples: dict[str, Json]) -> dict[str, Json]:
    """Error answers by HTTP status; an example for each reason that has one."""
    by_status: dict[int, list[str]] = {}
    for reason in dict.fromkeys(reasons):
        by_status.setdefault(REASONS[reason][0], []).append(reason)
    return {str(status): _response(by_status[status], examples) for status in sorted(by_status)}


def _response(reasons: list[str], examples: dict[str, Json]) -> Json:
    lines = [f"- `{reason}`: {REASONS[reason][1]}" for reason in reasons]
    content: Json = {"schema": STATUS_SCHEMA}
    shown = {reason: {"summary": reason, "value": examples[reason]} for reason in reasons if reason in examples}
    if shown:
        content["examples"] = shown
    return {"description": "\n".join(lines), "content": {"application/json": content}}


def share(operations: Iterable[Json]) -> dict[str, Json]:
    """Replace error answers that several operations give alike by references; returns what they refer to, by name."""
    users: dict[str, list[tuple[Json, str]]] = {}
    for operation in operations:
        for status, response in operation["responses"].items():
            if status >= "400":
                users.setdefault(json.dumps([status, response]), []).append((operation["responses"], status))
    shared: dict[str, Json] = {}
    for text, places in users.items():
        if len(places) > 1:
            status, response = json.loads(text)
            name = _free_name(f"Error{status}", shared)
            shared[name] = response
            for answers, key in places:
                answers[key] = {"$ref": f"#/components/responses/{name}"}
    return shared


def _free_name(wanted: str, taken: Iterable[str]) -> str:
    names = (wanted, *(f"{wanted}{letter}" for letter in "bcdefgh"))
    return next(name for name in names if name not in taken)
