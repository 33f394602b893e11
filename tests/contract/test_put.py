"""A file that comes whole, in one call, through every door that takes unary calls."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import uuid
from pathlib import Path
from typing import Any

import pytest

from support.doors import Door, Json, Refusal
from support.process import ServerProcess

KIB = 1024


def request_of(data: bytes, **other: Any) -> Json:
    whole = {"filename": "a.bin", "size_bytes": len(data), "data": base64.b64encode(data).decode()}
    return {**whole, **other}


async def put(door: Door, data: bytes, **other: Any) -> Json:
    return await door.call("PutFile", **request_of(data, **other))


async def refused(door: Door, request: Json) -> Refusal:
    with pytest.raises(Refusal) as caught:
        await door.call("PutFile", **request)
    return caught.value


def stored(server: ServerProcess) -> set[Path]:
    return {path for path in (server.data_dir / "bytes").rglob("*") if path.is_file()}


async def events(door: Door, file_id: str) -> list[Json]:
    found: list[Json] = (await door.call("ListAuditEvents", file_id=file_id))["events"]
    return found


@pytest.mark.parametrize("size", [0, 1, 4 * KIB, 256 * KIB])
async def test_it_is_completed_durable_and_audited_when_it_is_answered(
    door: Door, server: ServerProcess, size: int
) -> None:
    data = os.urandom(size)
    sha256 = hashlib.sha256(data).hexdigest()

    file = await put(door, data, filename="dir/ä.bin", content_type="image/png", sha256=sha256.upper())

    assert (file["status"], file["revision"], file["sha256"]) == ("UPLOAD_STATUS_COMPLETED", "3", sha256)
    assert (file["size_bytes"], file["bytes_received"]) == (str(size), str(size))
    assert (file["filename"], file["content_type"], file["batch_id"]) == ("dir/ä.bin", "image/png", "")
    assert file["created_at"] == file["updated_at"] == file["completed_at"]
    assert await door.call("GetFile", file_id=file["file_id"]) == file
    file_id: str = file["file_id"]
    assert (server.data_dir / "bytes" / file_id[:2] / file_id).read_bytes() == data
    trail = await events(door, file_id)
    moves = [("", "pending"), ("pending", "uploading"), ("uploading", "completed")]
    assert [(event["from_status"], event["to_status"]) for event in trail] == moves
    numbers = [int(event["event_id"]) for event in trail]
    assert numbers == list(range(numbers[0], numbers[0] + 3))
    assert {event["source"] for event in trail} == {door.name}


async def test_what_is_wrong_is_named_and_leaves_nothing_behind(door: Door, server: ServerProcess) -> None:
    before, files = stored(server), await door.call("ListFiles", page_size=1000)
    data = b"twelve bytes"
    rules = {
        "size_bytes": request_of(data, size_bytes=11),
        "sha256": request_of(data, sha256="00" * 32),
        "filename": request_of(data, filename=""),
        "request_id": request_of(data, request_id="x" * 129),
    }
    for field, request in rules.items():
        error = await refused(door, request)
        assert (error.code, error.reason, list(error.violations)) == ("INVALID_ARGUMENT", "INVALID_FIELD", [field])

    error = await refused(door, request_of(bytes(256 * KIB + 1)))
    assert (error.reason, list(error.violations)) == ("INVALID_FIELD", ["data"])
    assert error.metadata == {"field": "data", "limit": str(256 * KIB)}
    assert stored(server) == before
    assert await door.call("ListFiles", page_size=1000) == files


async def test_a_repeated_call_gets_the_file_and_another_request_is_refused(door: Door, server: ServerProcess) -> None:
    request = request_of(b"once", request_id=uuid.uuid4().hex)
    file = await door.call("PutFile", **request)
    before = stored(server)

    assert await door.call("PutFile", **request) == file
    for other in ({"filename": "b.bin"}, {"data": base64.b64encode(b"0nce").decode()}, {"content_type": "a/b"}):
        error = await refused(door, {**request, **other})
        assert (error.code, error.reason) == ("INVALID_ARGUMENT", "REQUEST_ID_REUSED")
    assert stored(server) == before
    assert len(await events(door, file["file_id"])) == 3


async def test_many_at_once_with_one_request_id_make_one_file(door: Door, server: ServerProcess) -> None:
    before = len(stored(server))
    request = request_of(b"all the same", request_id=uuid.uuid4().hex)

    files = await asyncio.gather(*(door.call("PutFile", **request) for _ in range(20)))

    assert {file["file_id"] for file in files} == {files[0]["file_id"]}
    assert len(stored(server)) == before + 1


async def test_it_can_no_longer_be_cancelled(door: Door) -> None:
    file = await put(door, b"done")
    with pytest.raises(Refusal) as caught:
        await door.call("CancelFile", file_id=file["file_id"])
    assert caught.value.reason == "FILE_NOT_CANCELLABLE"
    assert caught.value.metadata["status"] == "completed"
