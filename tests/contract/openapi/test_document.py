from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from google.api import annotations_pb2
from openapi_spec_validator import validate

from contract.openapi.document import Json, closed, load, operations, resolved, validator
from upload.v1 import upload_pb2

DOCUMENT = load()
SERVICE = upload_pb2.DESCRIPTOR.services_by_name["UploadService"]
ERRORS = re.compile(r"`([A-Z_]+)`:")
CANCELS = ("/api/v1/upload/cancel/{file_id}", "/api/v1/batch/cancel/{batch_id}")


def walk(value: Any, where: str = "#") -> Iterator[tuple[str, Json]]:
    """Every object in ``value`` with its place."""
    if isinstance(value, dict):
        yield where, value
        for key, item in value.items():
            yield from walk(item, f"{where}/{key}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from walk(item, f"{where}/{index}")


def examples() -> list[tuple[str, Json, Any]]:
    """Place, schema and value of every example."""
    found = []
    for where, item in walk(DOCUMENT):
        if "schema" not in item:
            continue
        values = [entry["value"] for entry in item.get("examples", {}).values()]
        values += [item["example"]] if "example" in item else []
        found += [(where, item["schema"], value) for value in values]
    return found


def test_it_is_valid_openapi() -> None:
    validate(DOCUMENT)
    assert DOCUMENT["openapi"].startswith("3.1.")


def test_it_has_every_route_of_the_protos_and_no_other() -> None:
    routes = set()
    for method in SERVICE.methods:
        options: Any = method.GetOptions()
        rule = options.Extensions[annotations_pb2.http]
        verb = rule.WhichOneof("pattern")
        if verb is not None:
            routes.add((getattr(rule, verb), verb, method.name))
    documented = {
        (path, verb, operation["operationId"])
        for path, verb, operation in operations(DOCUMENT)
        if "UploadService" in operation["tags"]
    }
    assert documented == routes


@pytest.mark.parametrize(
    ("where", "schema", "value"), examples(), ids=lambda value: value if isinstance(value, str) else ""
)
def test_examples_are_what_they_are_examples_of(where: str, schema: Json, value: Any) -> None:
    strict = closed(DOCUMENT)
    errors = [error.message for error in validator(strict, schema).iter_errors(value)]
    assert not errors, where


def test_every_operation_of_the_protos_has_an_example() -> None:
    for path, _, operation in operations(DOCUMENT):
        if "UploadService" in operation["tags"]:
            assert "example" in operation["responses"]["200"]["content"]["application/json"], path
            if "requestBody" in operation:
                assert "example" in operation["requestBody"]["content"]["application/json"], path


def test_names_are_the_protos_names() -> None:
    for where, item in walk(DOCUMENT):
        if "properties" in item:
            assert all(re.fullmatch(r"@type|[a-z][a-z0-9_]*", name) for name in item["properties"]), where
    for path, _, operation in operations(DOCUMENT):
        for parameter in operation.get("parameters", ()):
            assert re.fullmatch(r"Last-Event-ID|Range|If-(Range|Match|None-Match)|[a-z][a-z_]*", parameter["name"]), (
                path
            )


def test_generators_make_types_and_clients_that_cancel() -> None:
    for where, item in walk(DOCUMENT):
        # Of a choice that names no type they make a type that holds nothing, or nothing at all.
        assert "anyOf" not in item, where
        assert "discriminator" in item or "oneOf" not in item, where
        # Clients may leave out a body that is optional: some then send `null`, which is refused.
        assert item.get("requestBody", {"required": True})["required"], where


def test_requests_take_no_unknown_fields() -> None:
    for path, _, operation in operations(DOCUMENT):
        if "requestBody" in operation:
            schema = operation["requestBody"]["content"]["application/json"]["schema"]
            assert schema["additionalProperties"] is False, path
    assert DOCUMENT["components"]["schemas"]["upload.v1.FileSpec"]["additionalProperties"] is False


def test_numbers_look_as_proto_json_prints_them() -> None:
    file = DOCUMENT["components"]["schemas"]["upload.v1.File"]["properties"]
    batch = DOCUMENT["components"]["schemas"]["upload.v1.CancelBatchResponse"]["properties"]
    assert (file["size_bytes"]["type"], file["revision"]["type"]) == ("string", "string")
    assert batch["cancelled_files_count"]["type"] == "integer"
    assert "UPLOAD_STATUS_CANCELLED" in DOCUMENT["components"]["schemas"]["upload.v1.UploadStatus"]["enum"]


@pytest.mark.parametrize(
    ("path", "reasons"),
    [
        (CANCELS[0], {"400": "FILE_NOT_CANCELLABLE", "404": "FILE_NOT_FOUND", "500": "DATABASE_FAILURE"}),
        (CANCELS[1], {"400": "BATCH_NOT_CANCELLABLE", "404": "BATCH_NOT_FOUND", "500": "DATABASE_FAILURE"}),
    ],
)
def test_the_cancel_paths_name_their_errors(path: str, reasons: dict[str, str]) -> None:
    answers = DOCUMENT["paths"][path]["post"]["responses"]
    for status, reason in reasons.items():
        answer = resolved(DOCUMENT, answers[status])
        assert reason in ERRORS.findall(answer["description"])
        example = answer["content"]["application/json"]["examples"][reason]["value"]
        assert example["details"][0]["reason"] == reason


def test_cancel_answers_have_their_fields_in_the_contracts_order() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    file = ["message", "file_id", "filename", "cancelled_at"]
    batch = ["message", "batch_id", "cancelled_files_count", "total_files_in_batch", "cancelled_at"]
    for name, fields in (("CancelFileResponse", file), ("CancelBatchResponse", batch)):
        assert list(schemas[f"upload.v1.{name}"]["properties"]) == fields
        assert schemas[f"upload.v1.{name}"]["required"] == fields


def test_no_operation_hides_its_errors_behind_a_default() -> None:
    for path, _, operation in operations(DOCUMENT):
        assert "default" not in operation["responses"], path


def test_the_watch_has_its_media_types() -> None:
    answers = DOCUMENT["paths"]["/api/v1/watch"]["get"]["responses"]
    assert list(answers["200"]["content"]) == ["application/x-ndjson", "application/json", "text/event-stream"]
    assert "204" in answers


def test_what_is_beside_the_protos_is_there() -> None:
    beside = {"/healthz", "/readyz", "/metrics", "/openapi.json", "/api/v1/upload/ws/{file_id}"}
    assert beside <= set(DOCUMENT["paths"])
    prose = DOCUMENT["paths"]["/api/v1/upload/ws/{file_id}"]["get"]["description"]
    for word in ('"type": "cancel"', '"type": "commit"', "4409", "1012"):
        assert word in prose
