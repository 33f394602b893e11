"""Bodies that come as fast as they are read, which threads take from the socket: every answer is that of a slow one."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from clients.tus.client import Slow, Tus, file_id_of, metadata, reason, tus_on
from clients.tus.test_protocol import until_taken
from support.eventually import eventually
from support.process import ServerProcess, StartServer, gone_from_disk

MIB = 1024 * 1024
SIZE = 64 * MIB
CONTENT = os.urandom(MIB) * 64


def held(server: ServerProcess) -> list[str]:
    """Sockets and files of uploads that the server has open; not the database, whose readers come when needed."""
    found = []
    for link in Path(f"/proc/{server.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.append(str(link.readlink()))
    return [name for name in found if name.startswith("socket:") or str(server.data_dir / "bytes") in name]


@contextlib.asynccontextmanager
async def leaves_nothing(server: ServerProcess) -> AsyncIterator[Tus]:
    """In the end, without its clients, the server holds what it held in the beginning."""
    before = len(held(server))
    async with tus_on(server) as client:
        yield Tus(client)

    async def back() -> bool:
        return len(held(server)) <= before

    await eventually(back)


@contextlib.asynccontextmanager
async def at_full_speed(tus: Tus, url: str, offset: int = 0) -> AsyncIterator[Slow]:
    """Somebody sends the rest of a file and listens meanwhile; some of it has become durable."""
    async with tus.slow(url, SIZE - offset, offset) as sending:
        task = asyncio.create_task(push(sending, CONTENT[offset:]))
        try:
            await tus.until_durable(url, offset + 1)
            yield sending
        finally:
            task.cancel()
            await asyncio.wait({task})


async def push(sending: Slow, data: bytes) -> None:
    """Send until the server hangs up."""
    with contextlib.suppress(ConnectionError):
        for start in range(0, len(data), MIB):
            await sending.send(data[start : start + MIB])


async def resumes(tus: Tus, url: str) -> None:
    """Send what is missing; the file is what it was meant to be."""
    offset = await tus.offset(url)
    assert (await tus.append(url, offset, CONTENT[offset:])).status_code == 204
    assert (await tus.file(url))["sha256"] == hashlib.sha256(CONTENT).hexdigest()


async def test_a_request_behind_the_body_on_its_connection(start_server: StartServer) -> None:
    server = start_server()
    async with leaves_nothing(server) as tus:
        url, other = await tus.create(SIZE), await tus.create(5)
        async with tus.slow(url, SIZE) as sending:
            asking = asyncio.create_task(tus.offset(other))
            await push(sending, CONTENT)
            # Sent before the body is answered.
            assert (await sending.ask("HEAD", url)).status_code == 204
            answer = await sending.answer(of_head=True)
            assert (answer.status_code, answer.headers["upload-offset"]) == (200, str(SIZE))
            assert (await sending.ask("HEAD", other)).headers["upload-offset"] == "0"
            assert await asking == 0
        assert (await tus.file(url))["sha256"] == hashlib.sha256(CONTENT).hexdigest()


async def test_bytes_that_come_with_the_creation(start_server: StartServer) -> None:
    async with leaves_nothing(start_server()) as tus:
        async with tus.slow("", SIZE, 0, "POST", Upload_Length=str(SIZE)) as sending:
            await push(sending, CONTENT)
            answer = await sending.answer()
        assert (answer.status_code, answer.headers["upload-offset"]) == (201, str(SIZE))
        assert (await tus.file(answer.headers["location"]))["sha256"] == hashlib.sha256(CONTENT).hexdigest()


async def test_without_uvloop(start_server: StartServer) -> None:
    async with leaves_nothing(start_server("--uvloop", "false")) as tus:
        url = await tus.create(SIZE)
        await resumes(tus, url)


async def test_a_cancel_in_mid_body(start_server: StartServer) -> None:
    server = start_server()
    async with leaves_nothing(server) as tus:
        url = await tus.create(SIZE)
        async with at_full_speed(tus, url) as sending:
            assert (await tus.ask("DELETE", url)).status_code == 204
            answer = await sending.answer()
        assert (answer.status_code, reason(answer)) == (410, "UPLOAD_CANCELLED")
        assert metadata(answer)["cancelled_by"] == "user"
        await gone_from_disk(server, file_id_of(url))


async def test_a_take_over_in_mid_body(start_server: StartServer) -> None:
    async with leaves_nothing(start_server()) as tus:
        url = await tus.create(SIZE)
        async with at_full_speed(tus, url) as sending:
            offset = await tus.offset(url)
            newer = await tus.append(url, offset, CONTENT[offset:])
            answer = await sending.answer()
        if answer.status_code == 204:
            # The older one had sent all of it before.
            assert newer.status_code == 409
        else:
            assert (answer.status_code, reason(answer)) == (409, "WRITER_REPLACED")
            assert newer.status_code == 204
        assert (await tus.file(url))["sha256"] == hashlib.sha256(CONTENT).hexdigest()


@pytest.mark.parametrize("cut", [1, MIB // 2 + 3, 5 * MIB, SIZE - 1])
async def test_a_connection_that_breaks_in_mid_body(start_server: StartServer, cut: int) -> None:
    async with leaves_nothing(start_server()) as tus:
        url = await tus.create(SIZE)
        async with tus.slow(url, SIZE) as sending:
            await push(sending, CONTENT[:cut])
            await tus.until_durable(url, cut)
        assert await tus.offset(url) == cut
        await resumes(tus, url)


async def test_a_sender_that_stops_in_mid_body(start_server: StartServer) -> None:
    async with leaves_nothing(start_server("--idle-timeout", "3s")) as tus:
        url = await tus.create(SIZE)
        async with tus.slow(url, SIZE) as sending:
            await push(sending, CONTENT[: 5 * MIB + 7])
            answer = await sending.answer()
        assert (answer.status_code, reason(answer)) == (503, "UPLOAD_IDLE")
        assert await tus.offset(url) == 5 * MIB + 7
        await resumes(tus, url)


async def test_a_drain_in_mid_body(start_server: StartServer) -> None:
    server = start_server("--drain-grace", "100ms")
    async with tus_on(server) as client:
        tus = Tus(client)
        url = await tus.create(10 * SIZE)
        async with tus.slow(url, 10 * SIZE) as sending:
            pushing = asyncio.create_task(push(sending, CONTENT * 10))
            await tus.until_durable(url, MIB)
            stopping = asyncio.create_task(asyncio.to_thread(server.terminate))
            answer = await sending.answer()
            await asyncio.wait({pushing})
        assert (answer.status_code, reason(answer)) == (503, "SHUTTING_DOWN")
        assert await stopping == 0
    async with tus_on(start_server(data_dir=server.data_dir)) as client:
        tus = Tus(client)
        offset = await tus.offset(url)
        assert offset == server.stored_bytes() > MIB
        assert (await tus.append(url, offset, (CONTENT * 10)[offset:])).status_code == 204
        assert (await tus.file(url))["sha256"] == hashlib.sha256(CONTENT * 10).hexdigest()


async def test_a_body_longer_than_the_rest_of_the_file(start_server: StartServer) -> None:
    async with leaves_nothing(start_server()) as tus:
        url = await tus.create(SIZE - 1)
        async with tus.slow(url, SIZE) as sending:
            pushing = asyncio.create_task(push(sending, CONTENT))
            answer = await sending.answer()
            await asyncio.wait({pushing})
        assert (answer.status_code, reason(answer)) == (400, "SIZE_EXCEEDED")
        assert await tus.offset(url) == 0


@pytest.mark.parametrize(("content", "status"), [(CONTENT, 204), (CONTENT[:-1] + b"?", 460)])
async def test_a_long_body_with_a_checksum(start_server: StartServer, content: bytes, status: int) -> None:
    """Its bytes are withheld until the last one has come."""
    async with leaves_nothing(start_server()) as tus:
        url = await tus.create(SIZE)
        digest = base64.b64encode(hashlib.sha1(CONTENT, usedforsecurity=False).digest()).decode()
        answer = await tus.append(url, 0, content, Upload_Checksum=f"sha1 {digest}")
        assert answer.status_code == status
        if status != 204:
            assert await tus.offset(url) == 0
            await resumes(tus, url)
        assert (await tus.file(url))["sha256"] == hashlib.sha256(CONTENT).hexdigest()


async def test_a_take_over_by_a_sender_who_sends_again_what_is_there(start_server: StartServer) -> None:
    """What the older request has brought is skipped before threads read on."""
    async with leaves_nothing(start_server()) as tus:
        url = await tus.create(SIZE)
        async with tus.slow(url, SIZE) as older:
            await older.send(CONTENT[:MIB])
            await until_taken(tus, MIB)
            async with tus.slow(url, SIZE) as newer:
                await newer.send(CONTENT[: 300 * 1024])
                assert (await older.answer()).status_code == 409
                await push(newer, CONTENT[300 * 1024 :])
                assert (await newer.answer()).status_code == 204
        assert (await tus.file(url))["sha256"] == hashlib.sha256(CONTENT).hexdigest()
