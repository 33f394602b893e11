"""What callers are told when the service itself fails them, the same through every door."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import httpx
import pytest
import pytest_asyncio

from support.doors import Door, GrpcDoor, HttpDoor, Refusal, refusal_of_rpc
from support.process import ServerProcess, StartServer


@pytest.fixture
def failing(start_server: StartServer) -> ServerProcess:
    """A server of this test's own, since it is about to be harmed."""
    return start_server("--call-timeout", "1s", "--max-calls", "2")


@pytest_asyncio.fixture(params=["grpc", "http"])
async def door(request: pytest.FixtureRequest, failing: ServerProcess) -> AsyncIterator[Door]:
    """Each door of that server in turn."""
    if request.param == "grpc":
        async with grpc.aio.insecure_channel(failing.target) as channel:
            yield GrpcDoor(channel)
    else:
        async with httpx.AsyncClient(base_url=failing.url, timeout=20) as client:
            yield HttpDoor(client)


GARBAGE = b"\xff\xff\xff"


@pytest.mark.parametrize("method", ["CancelFile", "GetFile", "InitiateBatch", "WatchStatus"])
async def test_what_is_no_message_is_refused(server: ServerProcess, method: str) -> None:
    async with grpc.aio.insecure_channel(server.target) as channel:
        # On the wire an answer is a stream of one.
        call: Any = channel.unary_stream(f"/upload.v1.UploadService/{method}")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(GARBAGE).read()
    refusal = refusal_of_rpc(caught.value)
    assert (refusal.code, refusal.reason) == ("INVALID_ARGUMENT", "UNEXPECTED_MESSAGE")


@contextlib.contextmanager
def other_program(server: ServerProcess) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(server.data_dir / "upload.sqlite3", isolation_level=None)) as connection:
        yield connection


async def initiate(door: Door) -> str:
    file_id: str = (await door.call("InitiateUpload", filename="a", size_bytes=1))["file"]["file_id"]
    return file_id


async def test_what_nobody_foresaw_has_an_incident_that_the_log_has_too(failing: ServerProcess, door: Door) -> None:
    file_id = await initiate(door)
    with other_program(failing) as other:
        other.execute("UPDATE file SET created_at = 'no time at all'")
    with pytest.raises(Refusal) as caught:
        await door.call("GetFile", file_id=file_id)
    error = caught.value
    assert (error.code, error.reason, list(error.metadata)) == ("INTERNAL", "INTERNAL", ["incident"])
    assert "time" not in error.message
    line = failing.wait_log(lambda line: line.get("incident") == error.metadata["incident"])
    assert (line["event"], line["method"]) == ("call.failed", "GetFile")
    assert "no time at all" in str(line["exception"])


async def test_a_change_that_takes_too_long_is_unknown_and_its_request_id_tells_the_truth(
    failing: ServerProcess, door: Door
) -> None:
    file_id = await initiate(door)
    with other_program(failing) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Refusal) as caught:
            await door.call("CancelFile", file_id=file_id, request_id="r")
        # Reads do not wait for writers.
        assert (await door.call("GetFile", file_id=file_id))["status"] == "UPLOAD_STATUS_PENDING"
    assert (caught.value.code, caught.value.reason) == ("INTERNAL", "OUTCOME_UNKNOWN")
    answer = await door.call("CancelFile", file_id=file_id, request_id="r")
    file = await door.call("GetFile", file_id=file_id)
    assert (file["status"], file["cancelled_at"]) == ("UPLOAD_STATUS_CANCELLED", answer["cancelled_at"])
    assert len((await door.call("ListAuditEvents", file_id=file_id))["events"]) == 2


async def test_calls_beyond_the_bound_are_told_when_to_come_back(failing: ServerProcess, door: Door) -> None:
    """Two cancels wait for the database, so a third is one too many; reads are counted apart."""
    file_id = await initiate(door)
    with other_program(failing) as other:
        other.execute("BEGIN IMMEDIATE")
        cancels = [asyncio.create_task(door.call("CancelFile", file_id=file_id)) for _ in range(3)]
        done, _ = await asyncio.wait(cancels, return_when=asyncio.FIRST_EXCEPTION)
        [turned_away] = (task.exception() for task in done)
        assert (await door.call("GetFile", file_id=file_id))["status"] == "UPLOAD_STATUS_PENDING"
        others = await asyncio.gather(*(set(cancels) - done), return_exceptions=True)
    assert isinstance(turned_away, Refusal)
    assert (turned_away.code, turned_away.reason, turned_away.retry_seconds) == ("RESOURCE_EXHAUSTED", "OVERLOADED", 1)
    assert [each.reason for each in others if isinstance(each, Refusal)] == ["OUTCOME_UNKNOWN"] * 2
