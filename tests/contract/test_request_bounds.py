"""What a request may hold, through every door: the refusal names the bound, changes nothing, and costs little."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import grpc
import httpx
import pytest

from support.doors import Door, GrpcDoor, HttpDoor, Json, Refusal, refusal_of_http, refusal_of_rpc
from support.process import ServerProcess, StartServer

MIB = 1024 * 1024


async def refused(door: Door, method: str, **request: Any) -> Refusal:
    with pytest.raises(Refusal) as caught:
        await door.call(method, **request)
    return caught.value


@pytest.mark.parametrize("files", [[{"filename": "a"}] * 10_001, [{}] * 10_001, [{}] * 1_000_000])
async def test_a_batch_of_more_files_names_the_bound(door: Door, files: list[Json]) -> None:
    error = await refused(door, "InitiateBatch", files=files)
    assert (error.code, error.reason) == ("INVALID_ARGUMENT", "INVALID_FIELD")
    assert error.metadata == {"field": "files", "limit": "10000"}
    assert error.violations.keys() == {"files"}


async def test_a_batch_that_breaks_a_rule_everywhere_says_so_of_a_few(door: Door) -> None:
    error = await refused(door, "InitiateBatch", files=[{}] * 10_000)
    assert list(error.violations) == [f"files[{i}].filename" for i in range(8)]


async def test_a_batch_that_breaks_a_rule_at_its_end_changes_nothing(door: Door) -> None:
    files: list[Json] = [{"filename": "a"}] * 9_999
    request_id = f"late-{door.name}"
    error = await refused(door, "InitiateBatch", files=[*files, {"filename": ".."}], request_id=request_id)
    assert list(error.violations) == ["files[9999].filename"]
    # Nor is the request id taken, and the same in other slices is the same request.
    made = await door.call("InitiateBatch", files=files, request_id=request_id)
    assert (await door.call("InitiateBatch", files=files, request_id=request_id))["file_ids"] == made["file_ids"]
    error = await refused(door, "InitiateBatch", files=[*files, {"filename": "a"}], request_id=request_id)
    assert error.reason == "REQUEST_ID_REUSED"
    # Whoever watches this server is told what is open, and need not be told of these.
    await door.call("CancelBatch", batch_id=made["batch"]["batch_id"])


@pytest.mark.parametrize("length", [501, 60_000, 1_000_000])
async def test_a_field_that_is_too_long_is_refused_by_its_name_however_long(door: Door, length: int) -> None:
    error = await refused(door, "CancelFile", file_id="a", reason="x" * length)
    assert (error.reason, error.metadata["field"], list(error.violations)) == ("INVALID_FIELD", "reason", ["reason"])


async def test_a_body_of_8_mib_is_the_longest_of_any_call(http: httpx.AsyncClient) -> None:
    for path, body in (
        ("upload/initiate", b'{"filename":"a","size_bytes":1'),
        ("batch/initiate", b'{"files":[{"filename":"a"}]'),
    ):
        fitting = await http.post(f"/api/v1/{path}", content=body + b" " * (8 * MIB - 1 - len(body)) + b"}")
        assert fitting.status_code == 200
        response = await http.post(f"/api/v1/{path}", content=body + b" " * (8 * MIB - len(body)) + b"}")
        error = refusal_of_http(response)
        assert (response.status_code, error.code, error.reason) == (413, "RESOURCE_EXHAUSTED", "BODY_TOO_LARGE")
        assert error.metadata["limit"] == str(8 * MIB)


@pytest.mark.parametrize(
    ("request_", "field", "limit"),
    [
        ({"reason": "x" * 501}, "reason", 500),
        ({"request_id": "x" * 129}, "request_id", 128),
    ],
)
async def test_a_refusal_says_the_bound_of_its_field(door: Door, request_: Json, field: str, limit: int) -> None:
    error = await refused(door, "CancelFile", **{"file_id": "a", **request_})
    assert error.metadata == {"field": field, "limit": str(limit)}


async def test_a_watch_of_more_targets_names_the_bound(http: httpx.AsyncClient) -> None:
    for ids, found in ((1001, ("file_ids", "1000")), (2000, ("query", "1064"))):
        response = await http.get("/api/v1/watch", params={"file_ids": [str(i) for i in range(ids)]})
        error = refusal_of_http(response)
        assert (error.reason, error.metadata["field"], error.metadata["limit"]) == ("INVALID_FIELD", *found)


def unfinished(server: ServerProcess) -> socket.socket:
    """A connection that has announced a body of 8 MiB, was told to send it, and sends all but its last byte."""
    peer = socket.create_connection(("127.0.0.1", server.http_port), timeout=20)
    head = f"Host: localhost\r\nContent-Length: {8 * MIB}\r\nExpect: 100-continue"
    peer.sendall(f"POST /api/v1/batch/initiate HTTP/1.1\r\n{head}\r\n\r\n".encode())
    assert peer.recv(4096) == b"HTTP/1.1 100 Continue\r\n\r\n"
    peer.sendall(b" " * (8 * MIB - 1))
    return peer


async def test_long_bodies_that_do_not_end_hold_up_neither_cancels_nor_for_long_other_batches(
    start_server: StartServer,
) -> None:
    server = start_server()
    async with httpx.AsyncClient(base_url=server.url, timeout=20) as client:
        peers = [await asyncio.to_thread(unfinished, server) for _ in range(8)]
        door = HttpDoor(client)
        body = b'{"files":[' + b'{"filename":"a"},' * 5_000 + b'{"filename":"a"}]}'

        async def batch() -> httpx.Response:
            return await client.post("/api/v1/batch/initiate", content=body)

        response = await batch()
        error = refusal_of_http(response)
        assert (error.reason, error.metadata) == ("OVERLOADED", {"limit": str(64 * MIB)})
        assert (error.retry_seconds, response.headers["retry-after"]) == (1, "1")
        file = (await door.call("InitiateUpload", filename="a", size_bytes=1))["file"]
        await door.call("CancelFile", file_id=file["file_id"])
        # Each is ended: nothing comes for five seconds.
        answers = await asyncio.gather(*(asyncio.to_thread(heard, peer) for peer in peers))
        assert {answer.split(b"\r\n")[0] for answer in answers} == {b"HTTP/1.1 408 Request Timeout"}
        assert (await batch()).status_code == 200


def heard(peer: socket.socket) -> bytes:
    with peer:
        return peer.recv(4096)


async def test_grpc_takes_compressed_what_it_takes_plain(channel: Any) -> None:
    """Elements are counted before they are made: a few compressed bytes cost what the plain message does."""
    call: Any = channel.unary_unary("/upload.v1.UploadService/InitiateBatch")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(b"\n\0" * (4 * MIB), compression=grpc.Compression.Gzip)
    assert refusal_of_rpc(caught.value).metadata == {"field": "files", "limit": "10000"}
    assert (await GrpcDoor(channel).call("InitiateBatch", files=[{"filename": "a"}]))["file_ids"]
