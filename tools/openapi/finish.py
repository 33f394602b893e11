"""Finishes the generator's document: bounds, required fields, error answers, examples, what the protos do not say."""

import re
from collections.abc import Iterable, Iterator
from typing import Any

from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto

from tools.openapi import extra
from tools.openapi.errors import reasons_in, responses, share
from tools.openapi.examples import ANSWERS, BATCH_ID, ERRORS, FILE_ID, REQUESTS, TOKEN
from upload_server.domain import fields

Json = dict[str, Any]

_SEGMENT = rf"[^/\\\u0000-\u001f\u007f-\u009f]{{1,{fields.MAX_SEGMENT_CHARACTERS}}}"
_ID = {"minLength": 1, "maxLength": fields.MAX_ID_CHARACTERS}
# What the service enforces of a request's field, by the field's name; a name means the same in every request.
_BOUNDS: dict[str, Json] = {
    "file_id": _ID,
    "batch_id": _ID,
    "file_ids": {"items": {"type": "string", **_ID}, "maxItems": fields.MAX_WATCH_TARGETS},
    "batch_ids": {"items": {"type": "string", **_ID}, "maxItems": fields.MAX_WATCH_TARGETS},
    # In all so many bytes of UTF-8, of which a character has at least one.
    "filename": {"minLength": 1, "maxLength": fields.MAX_FILENAME_BYTES, "pattern": f"^{_SEGMENT}(/{_SEGMENT})*$"},
    "content_type": {"maxLength": fields.MAX_CONTENT_TYPE_BYTES, "pattern": "^[ -~]*$"},
    "size_bytes": {"pattern": "^[0-9]{1,19}$"},
    # In Base64.
    "data": {"maxLength": (fields.MAX_PUT_BYTES + 2) // 3 * 4},
    "sha256": {"pattern": "^([0-9a-fA-F]{64})?$"},
    "reason": {"maxLength": fields.MAX_REASON_CHARACTERS, "pattern": r"^[^\u0000]*$"},
    "request_id": {"maxLength": fields.MAX_ID_CHARACTERS, "pattern": r"^[^\u0000]*$"},
    "page_size": {"minimum": 0, "maximum": fields.MAX_PAGE_SIZE},
    "statuses": {"maxItems": 5},
    "owner": {"maxLength": fields.MAX_PRINCIPAL_BYTES},
    "filename_prefix": {"maxLength": fields.MAX_FILENAME_BYTES},
    "cancelled_by": {"maxLength": fields.MAX_ACTOR_CHARACTERS},
    "actor": {"maxLength": fields.MAX_ACTOR_CHARACTERS},
    "files": {"minItems": 1, "maxItems": fields.MAX_BATCH_FILES},
    "progress_interval": {"pattern": r"^[0-9]{1,9}(\.[0-9]{1,9})?s$"},
}
# Fields of requests without which a request is refused.
_NEEDED = {"filename", "files"}
# Messages in answers that are always set, though protobuf could leave them out.
_ALWAYS = {
    "AuditEvent": {"occurred_at"},
    "Batch": {"created_at", "updated_at"},
    "CancelBatchResponse": {"cancelled_at"},
    "CancelFileResponse": {"cancelled_at"},
    "File": {"created_at", "updated_at"},
    "GetStatisticsResponse": {"counted_since"},
    "InitiateBatchResponse": {"batch"},
    "InitiateUploadResponse": {"file"},
    "StatisticsBucket": {"start_at"},
}
_REQUEST_SCHEMAS = {"upload.v1.FileSpec"}
_PARAMETER_EXAMPLES: Json = {"file_id": FILE_ID, "batch_id": BATCH_ID, "file_ids": [FILE_ID], "resume_token": TOKEN}
_CHANGES = {"post", "put", "patch", "delete"}
_LINE = "upload.v1.WatchStatusResponse.Line"
_STREAM = """\
As they come, one JSON object a line: `{"result": …}`, and `{"error": …}` last if the stream fails. Typed
`application/json` for a client that accepts that by name.

With `Accept: text/event-stream` the same as server-sent events: `data` is one message, `id` its resume token, and a
reconnecting `EventSource` goes on from its `Last-Event-ID`. Comments come in silence. The last event is
`event: end`, whose `data` is the Status (code 0 when all is well)."""
_SSE_EXAMPLE = f"""\
retry: 3000
id: {TOKEN}
data: {{"bookmark": {{"resynced": false}}, "resume_token": "{TOKEN}"}}

event: end
data: {{"code": 0, "message": "", "details": []}}

"""


def finish(document: Json, files: Iterable[FileDescriptorProto]) -> Json:
    """Return the whole document in a stable order."""
    common = reasons_in(document["tags"][0]["description"])
    schemas = document["components"]["schemas"]
    messages = dict(_messages(files))
    for name, schema in schemas.items():
        _finish_schema(name, schema, messages)
    for path in document["paths"].values():
        for verb, operation in path.items():
            _finish_operation(verb, operation, common)
    _finish_watch(document["paths"]["/api/v1/watch"]["get"], schemas)
    paths: dict[str, Json] = dict(document["paths"])
    for path, item in extra.paths().items():
        # Of one path some verbs may be the transcoder's.
        paths[path] = {**item, **paths.get(path, {})}
    shared = share(operation for path in paths.values() for operation in path.values())
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "upload-service",
            "summary": "File uploads, cancelled for certain.",
            "description": extra.DESCRIPTION,
            "version": "v1",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/", "description": "This server."}],
        "tags": [*document["tags"], *extra.TAGS],
        "paths": paths,
        "components": {
            "schemas": dict(sorted((schemas | extra.ERROR_SCHEMAS).items())),
            "responses": dict(sorted(shared.items())),
        },
    }


def _messages(files: Iterable[FileDescriptorProto]) -> Iterator[tuple[str, DescriptorProto]]:
    for file in files:
        for message in file.message_type:
            yield f"{file.package}.{message.name}", message


def _finish_schema(name: str, schema: Json, messages: dict[str, DescriptorProto]) -> None:
    message = messages.get(name)
    if message is None or "properties" not in schema:
        return
    # The order of the proto, which is the order of the answer.
    schema["properties"] = {field.name: schema["properties"][field.name] for field in message.field}
    if name in _REQUEST_SCHEMAS:
        _finish_request(schema)
        return
    schema["required"] = [field.name for field in message.field if _is_always_there(message, field)]
    for prop in schema["properties"].values():
        if prop.get("format") == "int64":
            prop["pattern"] = "^-?[0-9]{1,19}$"
    if choices := schema.pop("oneOf", None):
        # Said in words: of a `oneOf` without properties generators make types that hold nothing.
        names = ", ".join(f"`{field}`" for choice in choices for field in choice.get("required", ()))
        schema["description"] = f"{schema['description']} Exactly one of {names} is there."


def _is_always_there(message: DescriptorProto, field: FieldDescriptorProto) -> bool:
    """Whether an answer always has the field: fields without presence are written out at their default."""
    if field.label == FieldDescriptorProto.LABEL_REPEATED:
        return True
    if field.HasField("oneof_index"):
        return False
    return field.type != FieldDescriptorProto.TYPE_MESSAGE or field.name in _ALWAYS.get(message.name, ())


def _finish_request(schema: Json) -> None:
    """Bounds, what is needed, and nothing else: unknown fields are refused."""
    for name, prop in schema["properties"].items():
        prop.update(_BOUNDS.get(name, {}))
    needed = [name for name in schema["properties"] if name in _NEEDED]
    if needed:
        schema["required"] = needed
    schema["additionalProperties"] = False


def _finish_operation(verb: str, operation: Json, common: list[str]) -> None:
    name = operation["operationId"] = operation["operationId"].partition("_")[2]
    # A viewer's list has room for a few plain words; the comment's first sentence is neither.
    comment = [operation.pop("summary"), operation.pop("description", "")]
    operation["summary"] = re.sub("(?<=[a-z])(?=[A-Z])", " ", name).capitalize()
    operation["description"] = "\n\n".join(filter(None, comment))
    reasons = [*reasons_in(operation["description"]), "INVALID_FIELD", "HOST_NOT_ALLOWED"]
    reasons += [reason for reason in common if verb in _CHANGES or reason != "OUTCOME_UNKNOWN"]
    reasons += ["MALFORMED_REQUEST", "URL_TOO_LONG", "HEAD_TOO_LARGE", "DEADLINE_EXCEEDED"]
    for parameter in operation.get("parameters", ()):
        _finish_parameter(parameter)
    if verb in _CHANGES:
        reasons.append("ORIGIN_NOT_ALLOWED")
    if "requestBody" in operation:
        reasons += ["BODY_TOO_LARGE", "BODY_TIMEOUT", "UNSUPPORTED_ENCODING"]
        _finish_body(operation["requestBody"], name)
    answer = operation["responses"]["200"]
    answer["content"]["application/json"]["example"] = ANSWERS[name]
    operation["responses"] = {"200": answer, **responses(reasons, ERRORS)}


def _finish_parameter(parameter: Json) -> None:
    name, schema = parameter["name"], parameter["schema"]
    schema.update(_BOUNDS.get(name, {}))
    if parameter["in"] == "query":
        # An empty filter filters nothing.
        schema.pop("minLength", None)
    if name in _PARAMETER_EXAMPLES and parameter["in"] == "path":
        parameter["example"] = _PARAMETER_EXAMPLES[name]


def _finish_body(body: Json, name: str) -> None:
    content = body["content"]["application/json"]
    _finish_request(content["schema"])
    content["example"] = REQUESTS[name]
    # The service takes a request without a body as one whose fields are all at their default. Clients that generators
    # make would send `null` for it, which is refused: they are told to send an object.
    body["required"] = True


def _finish_watch(operation: Json, schemas: Json) -> None:
    """The media types of a stream, which the generator takes for one JSON object."""
    ok = operation["responses"]["200"]
    content = ok["content"]["application/json"]
    line = content["schema"]
    line["description"] = "One line of the stream: either `result` or, last, `error`."
    schemas[_LINE] = line
    content["schema"] = {"$ref": f"#/components/schemas/{_LINE}"}
    ok["description"] = _STREAM
    # The first is what a client asks for that does not choose: one value a line, not one JSON text.
    ok["content"] = {
        "application/x-ndjson": content,
        "application/json": content,
        "text/event-stream": {"schema": {"type": "string"}, "example": _SSE_EXAMPLE},
    }
    nothing = {"description": "Nothing is left to send. An `EventSource` stops."}
    operation["responses"] = {"200": ok, "204": nothing, **operation["responses"]}
    operation["parameters"].append(
        {
            "name": "Last-Event-ID",
            "in": "header",
            "description": "With `Accept: text/event-stream`: the last `id` received; taken before `resume_token`. "
            "Clients that cannot set headers may send it as the query parameter `lastEventId`.",
            "schema": {"type": "string"},
        }
    )
