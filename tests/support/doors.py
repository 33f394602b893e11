"""The unary calls of upload.v1 through each door, in one shape: proto JSON in, proto JSON or an error out."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import quote

import grpc
import httpx
from google.protobuf import any_pb2
from google.protobuf.json_format import MessageToDict, ParseDict
from google.rpc import error_details_pb2, status_pb2
from google.rpc.code_pb2 import Code

from upload.v1 import upload_pb2 as pb
from upload.v1 import upload_pb2_grpc

Json = dict[str, Any]

_ROUTES = {
    "InitiateUpload": ("POST", "/api/v1/upload/initiate"),
    "PutFile": ("POST", "/api/v1/upload/put"),
    "InitiateBatch": ("POST", "/api/v1/batch/initiate"),
    "GetFile": ("GET", "/api/v1/files/{file_id}"),
    "ListFiles": ("GET", "/api/v1/files"),
    "GetBatch": ("GET", "/api/v1/batch/{batch_id}"),
    "ListBatches": ("GET", "/api/v1/batches"),
    "GetStatistics": ("GET", "/api/v1/statistics"),
    "GetCaller": ("GET", "/api/v1/me"),
    "CancelFile": ("POST", "/api/v1/upload/cancel/{file_id}"),
    "CancelBatch": ("POST", "/api/v1/batch/cancel/{batch_id}"),
    "DeleteContent": ("DELETE", "/api/v1/files/{file_id}/content"),
    "ListAuditEvents": ("GET", "/api/v1/audit/events"),
}
# As grpc-gateway maps them; what this service answers.
HTTP_STATUS = {
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "NOT_FOUND": 404,
    "ABORTED": 409,
    "RESOURCE_EXHAUSTED": 429,
    "INTERNAL": 500,
    "UNAVAILABLE": 503,
}


@dataclass
class Refusal(Exception):
    """An error answer, taken apart."""

    code: str
    reason: str
    message: str
    metadata: dict[str, str] = field(default_factory=dict)
    violations: dict[str, str] = field(default_factory=dict)
    # What is not as it would have to be: by its id, the kind of it and how it is.
    preconditions: dict[str, tuple[str, str]] = field(default_factory=dict)
    # What a quota refuses, by whose it is.
    quotas: dict[str, str] = field(default_factory=dict)
    # Seconds to wait before a retry; 0 when the answer does not say.
    retry_seconds: float = 0


class Door(Protocol):
    """A way in."""

    name: str

    async def call(self, method: str, **request: Any) -> Json:
        """Call a method; returns its answer as proto JSON with defaults, raises Refusal."""


def refusal(status: status_pb2.Status) -> Refusal:
    """Take a Status apart; it must say its reason, in our domain, and stay small."""
    assert status.ByteSize() < 4096
    error, bad, retry = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
    failed, quota = error_details_pb2.PreconditionFailure(), error_details_pb2.QuotaFailure()
    for detail in status.details:
        # Unpack takes only what it is made for.
        assert any(detail.Unpack(kind) for kind in (error, bad, retry, failed, quota))
    assert error.domain == "upload.v1"
    for broken in quota.violations:
        assert (broken.quota_metric, str(broken.quota_value)) == (error.metadata["limit"], error.metadata["quota"])
    return Refusal(
        code=Code.Name(status.code),
        reason=error.reason,
        message=status.message,
        metadata=dict(error.metadata),
        violations={v.field: v.description for v in bad.field_violations},
        preconditions={v.subject: (v.type, v.description) for v in failed.violations},
        quotas={v.subject: v.description for v in quota.violations},
        retry_seconds=retry.retry_delay.ToTimedelta().total_seconds(),
    )


def refusal_of_rpc(error: grpc.aio.AioRpcError) -> Refusal:
    """Take the Status out of an RPC error; code and message must agree with it."""
    trailers = dict(error.trailing_metadata() or ())
    raw = trailers.get("grpc-status-details-bin")
    assert isinstance(raw, bytes), f"no details: {error!r}"
    status = status_pb2.Status.FromString(raw)
    assert Code.Name(status.code) == error.code().name
    assert status.message == error.details()
    return refusal(status)


def refusal_of_json(body: Json) -> Refusal:
    """Take apart a Status in JSON."""
    assert body.keys() == {"code", "message", "details"}
    details = []
    for detail in body["details"]:
        packed = any_pb2.Any()
        ParseDict(detail, packed)
        details.append(packed)
    return refusal(status_pb2.Status(code=body["code"], message=body["message"], details=details))


def refusal_of_http(response: httpx.Response) -> Refusal:
    """Take the Status out of an HTTP answer; the HTTP status must be the one of its code."""
    assert response.headers["content-type"] == "application/json"
    found = refusal_of_json(response.json())
    expected = {405, 413} if response.status_code in {405, 413} else {HTTP_STATUS[found.code]}
    if found.reason == "STORAGE_FULL":
        expected = {507}
    assert response.status_code in expected
    return found


class GrpcDoor:
    """The gRPC port."""

    name = "grpc"

    def __init__(self, channel: grpc.aio.Channel, metadata: tuple[tuple[str, str], ...] = ()) -> None:
        self._metadata = metadata
        self._stub = upload_pb2_grpc.UploadServiceStub(channel)

    async def call(self, method: str, **request: Any) -> Json:
        """Call a method."""
        message = ParseDict(request, getattr(pb, f"{method}Request")())
        try:
            answer = await getattr(self._stub, method)(message, timeout=20, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            raise refusal_of_rpc(error) from None
        return MessageToDict(answer, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)


class HttpDoor:
    """The HTTP port."""

    name = "http"

    def __init__(self, client: httpx.AsyncClient, headers: dict[str, str] | None = None) -> None:
        self._client = client
        self._headers = headers or {}

    async def call(self, method: str, **request: Any) -> Json:
        """Call a method by its route."""
        verb, path = _ROUTES[method]
        for variable in ("file_id", "batch_id"):
            if f"{{{variable}}}" in path:
                path = path.replace(f"{{{variable}}}", quote(request.pop(variable), safe=""))
        if verb in {"GET", "DELETE"}:
            response = await self._client.request(verb, path, params=request, headers=self._headers)
        else:
            response = await self._client.post(path, json=request, headers=self._headers)
        if response.status_code != 200:
            raise refusal_of_http(response)
        answer: Json = json.loads(response.content)
        return answer
