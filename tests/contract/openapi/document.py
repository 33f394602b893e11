"""The committed document, and judging JSON by its schemas."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator, FormatChecker

Json = dict[str, Any]

PATH = Path(__file__).parents[3] / "server" / "upload_server" / "doors" / "http" / "openapi" / "openapi.json"
VERBS = {"get", "post", "put", "patch", "delete"}


def load() -> Json:
    """Return a fresh copy of the document."""
    document: Json = json.loads(PATH.read_bytes())
    return document


def operations(document: Json) -> Iterator[tuple[str, str, Json]]:
    """Path, verb and operation of each."""
    for path, item in document["paths"].items():
        for verb, operation in item.items():
            if verb in VERBS:
                yield path, verb, operation


def resolved(document: Json, value: Json) -> Json:
    """Follow a reference, if ``value`` is one."""
    while "$ref" in value:
        found: Any = document
        for step in value["$ref"].removeprefix("#/").split("/"):
            found = found[step]
        value = found
    return value


def closed(document: Json) -> Json:
    """A copy in which no answer may hold a member that the document does not name."""
    document = copy.deepcopy(document)
    for schema in document["components"]["schemas"].values():
        if "properties" in schema:
            schema.setdefault("additionalProperties", False)
    return document


def validator(document: Json, schema: Json) -> Draft202012Validator:
    """Judges by ``schema``, whose references are into ``document``."""
    whole = {**schema, "components": document["components"]}
    return Draft202012Validator(whole, format_checker=FormatChecker(["date-time"]))
