"""Holds what the protos do not say: the paths beside the transcoder, prose, and the error details' schemas."""

from typing import Any

from tools.openapi.errors import STATUS_SCHEMA, responses
from tools.openapi.examples import ERRORS, FILE_ID

Json = dict[str, Any]

DESCRIPTION = """\
Takes file uploads and cancels them for certain: a cancelled upload never becomes anything else, its bytes stop and are
removed, and everyone watching hears of it.

Bytes come in over the WebSocket below, by tus or over gRPC (`upload.v1.UploadService/UploadFile`); everything else is
here.

**JSON.** ProtoJSON with the protos' field names. 64-bit integers are strings (numbers are taken too), 32-bit ones are
numbers, enums are their names, times are RFC 3339 in UTC. Fields at their default are written out; times that have not
come are absent. Unknown fields and unknown query parameters are refused, so that a mistyped `request_id` is not lost.

**Errors** are a `google.rpc.Status`: `code`, `message` and `details`. The first detail is a `google.rpc.ErrorInfo`
whose `reason` is the word to act on. A known path with the wrong method is 405 with `Allow`.

**Time limits.** `Grpc-Timeout: 500m` (a number and one of `H M S m u n`) ends a call with 504. A cancel that was ended
this way may still take effect; the same `request_id` asks again."""

_HEADS = ("MALFORMED_REQUEST", "HEAD_TOO_LARGE")
_CALLERS = ("CREDENTIAL_MISSING", "CREDENTIAL_INVALID", "CREDENTIAL_EXPIRED", "PERMISSION_DENIED")
_DETAIL = "type.googleapis.com/google.rpc."
_DETAILS = ("ErrorInfo", "BadRequest", "PreconditionFailure", "QuotaFailure", "RetryInfo")


def _detail(name: str, description: str, properties: Json) -> Json:
    properties = {"@type": {"type": "string", "const": _DETAIL + name}, **properties}
    return {"type": "object", "description": description, "properties": properties, "required": list(properties)}


def _text(description: str) -> Json:
    return {"type": "string", "description": description}


def _items(schema: Json) -> Json:
    return {"type": "array", "items": {"type": "object", "properties": schema, "required": list(schema)}}


_METADATA = {
    "type": "object",
    "description": "The ids and the state found, such as `file_id`, `status`, `revision`, `cancelled_at`.",
    "additionalProperties": {"type": "string"},
}
_VIOLATION = {
    "field": _text("Path of the field, such as `files[3].filename`."),
    "description": _text("The rule it breaks."),
    "reason": _text("Not used."),
}
_PRECONDITION = {
    "type": _text("`STATUS`."),
    "subject": _text("The id of the file or batch."),
    "description": _text("The state found."),
}
_QUOTA = {
    "subject": _text("`principal:` and whose quota it is."),
    "description": _text("The quota, and what was asked for."),
    **{name: _text("Not used.") for name in ("api_service", "quota_metric", "quota_id", "quota_value")},
    "quota_dimensions": {**_METADATA, "description": "Not used."},
}

# The generator describes google.rpc.Status without its details: their types are none of the protos' own.
ERROR_SCHEMAS: dict[str, Json] = {
    "google.rpc.Status": {
        "type": "object",
        "description": "Every error answer.",
        "properties": {
            "code": {"type": "integer", "format": "int32", "description": "The gRPC code (google.rpc.Code)."},
            "message": _text("For people; may change."),
            "details": {
                "type": "array",
                "description": "A `google.rpc.ErrorInfo` first.",
                "items": {
                    "oneOf": [{"$ref": f"#/components/schemas/google.rpc.{name}"} for name in _DETAILS],
                    "discriminator": {
                        "propertyName": "@type",
                        "mapping": {_DETAIL + name: f"#/components/schemas/google.rpc.{name}" for name in _DETAILS},
                    },
                },
            },
        },
        "required": ["code", "message", "details"],
    },
    "google.rpc.ErrorInfo": _detail(
        "ErrorInfo",
        "Says why.",
        {
            "reason": _text("One of the UPPER_SNAKE words named at the answers."),
            "domain": {"type": "string", "const": "upload.v1"},
            "metadata": _METADATA,
        },
    ),
    "google.rpc.BadRequest": _detail(
        "BadRequest", "With `INVALID_FIELD`: which fields, and their rules.", {"field_violations": _items(_VIOLATION)}
    ),
    "google.rpc.PreconditionFailure": _detail(
        "PreconditionFailure", "With `…_NOT_CANCELLABLE`: the state found.", {"violations": _items(_PRECONDITION)}
    ),
    "google.rpc.QuotaFailure": _detail(
        "QuotaFailure", "With `QUOTA_EXCEEDED`: which one.", {"violations": _items(_QUOTA)}
    ),
    "google.rpc.RetryInfo": _detail(
        "RetryInfo", "With `OVERLOADED`: when to try again.", {"retry_delay": _text("Seconds, such as `1s`.")}
    ),
}

TAGS: list[Json] = [
    {"name": "WebSocket", "description": "Sends a file's bytes from a browser."},
    {"name": "Content", "description": "What was uploaded."},
    {"name": "Server", "description": "For load balancers, monitoring and tools."},
]

_WEBSOCKET = """\
Sends the bytes of one file over a WebSocket; closing the socket cancels it.

**Binary** messages (at most 1 MiB each) are the file's bytes in order; **text** messages are JSON.

| the page sends | |
| --- | --- |
| `{"type": "commit", "sha256": "…"}` | every byte was sent; `sha256` may be left out |
| `{"type": "cancel", "reason": "…"}` | cancels the upload |

| the server sends | |
| --- | --- |
| `{"type": "progress", "bytes_received": 1048576}` | so many bytes survive a power loss |
| `{"type": "success", "file": {…}}` | the file is completed (`upload.v1.File`) |
| `{"type": "cancelled", "cancelled_at": "…", "cancelled_by": "…", "reason": "…"}` | the file is cancelled |
| `{"type": "error", "error": {…}}` | a `google.rpc.Status` |

A page that sends no commit completes the file with its last byte; a file of 0 bytes needs the commit.

**A close frame of the page with 1000, 1001, 4000 or no code cancels the upload at once.** The reason then says what
happened; a page gives its own as the text of a close with 4000. A socket lost without a close frame, or with WebKit's
1001 of a page that it only puts aside, cancels after `--websocket-grace` (5 min) unless a stream opens on the file
before; `?grace=90s` asks for less, or for more up to `--max-websocket-grace` (1 h). With `?on_disconnect=keep` neither
cancels. The server's own close never cancels, also for a message that is too large; nor does a socket on which the page
never sent a message: until then it only watches the file.

The server closes with 1000 after `success` and after a cancel this page asked for, 4409 after a cancel by anyone else,
4400 or 4404 after an `error`, 4401, 4403 or 4429 where that is about the caller's credential, rights or quotas, 1008
where it is about too many pings or fragments, 1012 when it restarts, 1013 when it is overloaded. Keep `bufferedAmount`
under 1 MiB: a close waits behind every queued byte."""


def _parameter(name: str, place: str, schema: Json, description: str) -> Json:
    return {"name": name, "in": place, "description": description, "required": place == "path", "schema": schema}


def _get(tag: str, operation: str, summary: str, answers: Json, description: str = "") -> Json:
    get: Json = {"tags": [tag], "summary": summary, "operationId": operation, "responses": answers}
    if description:
        get["description"] = description
    return {"get": get}


def _ok(description: str, media_type: str, schema: Json) -> Json:
    return {"200": {"description": description, "content": {media_type: {"schema": schema}}}}


def _state(word: str) -> Json:
    return {"type": "object", "properties": {"status": {"type": "string", "const": word}}, "required": ["status"]}


def _websocket() -> Json:
    path = _get(
        "WebSocket",
        "UploadFileByWebSocket",
        "Upload file by WebSocket",
        {
            "101": {"description": "The WebSocket is open. What is refused after this comes as an `error` message."},
            **responses(["HOST_NOT_ALLOWED", "ORIGIN_NOT_ALLOWED", "UPGRADE_REQUIRED", *_HEADS], ERRORS),
        },
        _WEBSOCKET,
    )
    path["get"]["parameters"] = [
        {**_parameter("file_id", "path", {"type": "string", "minLength": 1}, "The file."), "example": FILE_ID},
        _parameter(
            "offset",
            "query",
            {"type": "string", "pattern": "^[0-9]{1,19}$", "default": "0"},
            "Where the bytes that follow start; must equal the file's `bytes_received`.",
        ),
        _parameter(
            "on_disconnect",
            "query",
            {"type": "string", "enum": ["cancel", "keep"], "default": "cancel"},
            "What a closed or lost socket means.",
        ),
        _parameter(
            "grace",
            "query",
            {"type": "string", "pattern": r"^[0-9]{1,9}(\.[0-9]{1,6})?(ms|s|m|h)?$", "example": "90s"},
            "How long a lost socket's upload waits for its page; by default `--websocket-grace`.",
        ),
    ]
    return path


# Headers of RFC 9110 that the content heeds.
_CONDITIONS = {
    "If-Range": "An `ETag`: the `Range` counts only if it is the file's; else all bytes come.",
    "If-None-Match": "`ETag`s that the caller has, or `*`: 304 if the file's is among them.",
    "If-Match": "`ETag`s, or `*`: 412 unless the file's is among them.",
}


def _content() -> Json:
    bytes_ = {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}
    # Conditions that do not hold say so as errors do; so does a range beyond the end.
    failing = {"content": {"application/json": {"schema": STATUS_SCHEMA}}}
    reasons = [
        *(
            "FILE_NOT_FOUND",
            "FILE_NOT_COMPLETED",
            "CONTENT_DELETED",
            "INVALID_FIELD",
            "HOST_NOT_ALLOWED",
            "PERMISSION_DENIED",
        ),
        *("CREDENTIAL_MISSING", "CREDENTIAL_INVALID", "CREDENTIAL_EXPIRED", "ORIGIN_NOT_ALLOWED"),
        *("OVERLOADED", "RATE_EXCEEDED", "SHUTTING_DOWN", "DATABASE_FAILURE", "STORAGE_FAILURE", "INTERNAL", *_HEADS),
    ]
    path = _get(
        "Content",
        "DownloadFile",
        "Download file",
        {
            "200": {"description": "All bytes; `ETag` is their SHA-256.", **bytes_},
            "206": {"description": "The bytes of one `Range`.", **bytes_},
            "304": {"description": "`If-None-Match` names the `ETag`."},
            **responses(reasons, ERRORS),
            "412": {"description": "`If-Match` does not name the `ETag`.", **failing},
            "416": {"description": "The file ends before the `Range` begins.", **failing},
        },
        "The bytes of a completed file. They never change: a download that was broken off goes on with `Range` and "
        "`If-Range`. `HEAD` gives the headers alone.",
    )
    path["get"]["parameters"] = [
        {**_parameter("file_id", "path", {"type": "string", "minLength": 1}, "The file."), "example": FILE_ID},
        _parameter("Range", "header", {"type": "string", "example": "bytes=1048576-"}, "One range of bytes."),
        *(_parameter(name, "header", {"type": "string"}, meaning) for name, meaning in _CONDITIONS.items()),
    ]
    return path


def paths() -> dict[str, Json]:
    """Return the paths that the transcoder does not serve."""
    refused = responses(["HOST_NOT_ALLOWED", *_HEADS], ERRORS)
    failing = {
        "description": "It does not: it is draining, or the database does not answer.",
        "content": {"application/json": {"schema": STATUS_SCHEMA}},
    }
    metrics = _ok("Prometheus text format.", "text/plain", {"type": "string"})
    document = _ok("OpenAPI 3.1.", "application/json", {"type": "object"})
    return {
        "/api/v1/upload/ws/{file_id}": _websocket(),
        "/api/v1/files/{file_id}/content": _content(),
        "/healthz": _get(
            "Server",
            "Healthz",
            "Liveness",
            {**_ok("The process answers.", "application/json", _state("ok")), **refused},
        ),
        "/readyz": _get(
            "Server",
            "Readyz",
            "Readiness",
            {**_ok("The service takes work.", "application/json", _state("ready")), **refused, "503": failing},
        ),
        "/metrics": _get(
            "Server", "Metrics", "Metrics", {**metrics, **responses(["HOST_NOT_ALLOWED", *_CALLERS, *_HEADS], ERRORS)}
        ),
        "/openapi.json": _get("Server", "OpenApi", "OpenAPI document", {**document, **refused}),
    }
