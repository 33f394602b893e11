"""What the document allows and what it forbids, thrown at a real server: no 5xx, and no answer outside the document."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis import Case as GenericCase
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from contract.openapi.document import closed, load, operations, validator
from support.process import ServerProcess

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
# Examples an operation; about 40 s for all of them.
EXAMPLES = 60
# A watch ends by itself only when all its targets are final.
WATCH_SECONDS = 0.15
DOCUMENT = closed(load())
SCHEMA = schemathesis.openapi.from_dict(DOCUMENT)


Case = GenericCase[Any]


@dataclass(frozen=True)
class Target:
    """A server, and ids of it: random ones never name anything."""

    url: str
    file_ids: tuple[str, ...]
    batch_ids: tuple[str, ...]


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with ServerProcess(tmp_path_factory.mktemp("fuzzed")) as server, httpx.Client(base_url=server.url) as http:
        files, batches = [], []
        for index in range(8):
            files.append(http.post("/api/v1/upload/initiate", json={"filename": f"{index}"}).json()["file"]["file_id"])
            body = {"files": [{"filename": "a"}, {"filename": "b"}]}
            batches.append(http.post("/api/v1/batch/initiate", json=body).json()["batch"]["batch_id"])
        yield Target(server.url, tuple(files), tuple(batches))
        assert server.popen.poll() is None
        assert http.get("/readyz").status_code == 200
        assert not [line for line in server.log if line.get("level") in {"error", "critical"}]


def aim(case: Case, target: Target) -> None:
    """Let about half of the calls name something that is there; the same half in every run."""
    for name, known in (("file_id", target.file_ids), ("batch_id", target.batch_ids)):
        for parameters in (case.path_parameters, case.query):
            if name in parameters:
                lot = zlib.crc32(repr((parameters[name], case.body)).encode())
                if lot % 2:
                    parameters[name] = known[lot // 2 % len(known)]


@SCHEMA.parametrize()
@settings(
    max_examples=EXAMPLES,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@pytest.mark.timeout(180)
def test_no_answer_is_outside_the_document(case: Case, target: Target) -> None:
    aim(case, target)
    if case.operation.label == "GET /api/v1/watch":
        watch(case, target)
        return
    case.call_and_validate(base_url=target.url, checks=CHECKS, timeout=10)


def watch(case: Case, target: Target) -> None:
    """A stream is lines of JSON or events: its answer is judged here, a line at a time."""
    headers = {**dict(case.headers or {}), "Grpc-Timeout": f"{int(WATCH_SECONDS * 1000)}m"}
    if zlib.crc32(repr(case.query).encode()) % 3 == 0:
        case.query["file_ids"] = list(target.file_ids[:2])
        case.query["batch_ids"] = list(target.batch_ids[:2])
    answer = case.call(base_url=target.url, headers=headers, timeout=10)
    # The deadline that this test sets is no fault of the server.
    assert answer.status_code < 500 or answer.status_code == 504, answer.text
    checks = [status_code_conformance, content_type_conformance]
    if answer.status_code != 200:
        checks.append(response_schema_conformance)
    elif "text/event-stream" not in answer.headers["content-type"][0]:
        line = {"$ref": "#/components/schemas/upload.v1.WatchStatusResponse.Line"}
        judge = validator(DOCUMENT, line)
        for text in answer.text.splitlines():
            judge.validate(json.loads(text))
    case.validate_response(answer, checks=checks)


def test_every_operation_is_fuzzed() -> None:
    assert len(list(SCHEMA.get_all_operations())) == len(list(operations(DOCUMENT)))
