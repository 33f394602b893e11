"""What a sender is told whose file somebody else has cancelled, request by request: so that it never begins anew."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator

import httpx
import pytest

from clients.tus.client import BYTES, PATH, Slow, Tus, encoded, file_id_of, metadata, reason, tus_on
from support.eventually import eventually
from support.process import ServerProcess, StartServer, gone_from_disk

MIB = 1024 * 1024
# Longer than the server reads on behind an answer that is nobody's last.
LONG_SECONDS = 2.5


async def cancel(tus: Tus, url: str) -> None:
    answer = await tus.client.post(f"/api/v1/upload/cancel/{file_id_of(url)}", json={"reason": "not wanted"})
    assert answer.status_code == 200


@contextlib.asynccontextmanager
async def cancelled_under(tus: Tus, url: str, length: int, sent: int) -> AsyncIterator[Slow]:
    """A PATCH of ``length`` bytes, of which some are durable when the file is cancelled."""
    async with tus.slow(url, length) as sending:
        await sending.send(b"x" * sent)
        await tus.until_durable(url, sent)
        await cancel(tus, url)
        yield sending


async def head(tus: Tus, url: str) -> tuple[int, str | None]:
    answer = await tus.ask("HEAD", url)
    return answer.status_code, answer.headers.get("upload-offset")


async def until_head(tus: Tus, url: str, expected: int) -> None:
    async def is_so() -> bool:
        return (await head(tus, url))[0] == expected

    await eventually(is_so)


async def test_a_sender_is_told_at_once_and_its_body_is_read_to_its_end(tus: Tus) -> None:
    url = await tus.create(2 * MIB)
    async with cancelled_under(tus, url, 2 * MIB, MIB) as sending:
        answer = await sending.answer()
        assert (answer.status_code, reason(answer)) == (410, "UPLOAD_CANCELLED")
        told = metadata(answer)
        assert (told["cancelled_by"], told["cancel_reason"]) == ("user", "not wanted")
        assert told["cancelled_at"]
        # A browser listens when its body is out: it must find the connection as it was.
        assert await head(tus, url) == (200, str(MIB))
        await asyncio.sleep(LONG_SECONDS)
        await sending.send(b"x" * MIB)
        assert (await sending.ask("HEAD", url)).status_code == 410
    assert await head(tus, url) == (410, None)


async def test_a_sender_that_may_have_heard_nothing_is_told_again(tus: Tus) -> None:
    url = await tus.create(MIB)
    async with cancelled_under(tus, url, MIB, 1000):
        pass
    for _ in range(2):
        assert await head(tus, url) == (200, "1000")
        async with tus.slow(url, MIB - 1000, 1000) as sending:
            assert (await sending.answer()).status_code == 410
    assert await head(tus, url) == (200, "1000")
    answer = await tus.append(url, 1000, b"x" * (MIB - 1000))
    assert (answer.status_code, reason(answer)) == (410, "FILE_NOT_WRITABLE")
    assert metadata(answer)["cancel_reason"] == "not wanted"
    assert await head(tus, url) == (410, None)
    assert (await tus.append(url, 1000, b"x")).status_code == 410


async def test_a_file_that_nobody_sent_to_is_gone_at_once(tus: Tus) -> None:
    url = await tus.create(MIB)
    await cancel(tus, url)
    assert await head(tus, url) == (410, None)
    # Somebody does send to it, and hears nothing.
    async with tus.slow(url, MIB) as sending:
        await sending.answer()
    await until_head(tus, url, 200)
    assert (await tus.append(url, 0, b"x" * MIB)).status_code == 410
    assert await head(tus, url) == (410, None)


async def test_who_terminates_an_upload_knows(tus: Tus) -> None:
    url = await tus.create(MIB)
    async with tus.slow(url, MIB) as sending:
        await sending.send(b"x" * 1000)
        await tus.until_durable(url, 1000)
        assert (await tus.ask("DELETE", url)).status_code == 204
        assert await head(tus, url) == (410, None)
        assert (await sending.answer()).status_code == 410


async def test_a_cancelled_batch_s_senders_are_told_likewise(tus: Tus) -> None:
    files = [{"filename": "a", "size_bytes": 100}, {"filename": "b", "size_bytes": 100}]
    made = (await tus.client.post("/api/v1/batch/initiate", json={"files": files})).json()
    sent, waiting = (f"{PATH}/{file_id}" for file_id in made["file_ids"])
    async with tus.slow(sent, 100) as sending:
        await sending.send(b"x" * 10)
        await tus.until_durable(sent, 10)
        await tus.client.post(f"/api/v1/batch/cancel/{made['batch']['batch_id']}", json={"reason": "all of it"})
        answer = await sending.answer()
        assert metadata(answer)["cancelled_by"] == "batch_cancel"
        assert metadata(answer)["cancel_reason"] == "all of it"
    assert await head(tus, sent) == (200, "10")
    assert await head(tus, waiting) == (410, None)


async def test_an_offset_at_the_end_would_look_like_success(tus: Tus) -> None:
    url = await tus.create(10)
    async with tus.slow(url, 0, Transfer_Encoding="chunked") as sending:
        await sending.send(b"a\r\n1234567890\r\n")
        await tus.until_durable(url, 10)
        await cancel(tus, url)
    assert await head(tus, url) == (423, None)
    assert (await tus.append(url, 10, b"")).status_code == 410
    assert await head(tus, url) == (410, None)


async def test_a_restart_tells_once_more_and_the_time_to_live_ends_it(start_server: StartServer) -> None:
    server = start_server()
    async with tus_on(server) as client:
        tus = Tus(client)
        url = await tus.create(10)
        await tus.append(url, 0, b"12345")
        await cancel(tus, url)
        assert (await tus.append(url, 5, b"6")).status_code == 410
        assert await head(tus, url) == (410, None)
    server.kill()
    server = start_server()
    async with tus_on(server) as client:
        assert await head(Tus(client), url) == (200, "5")
    server.kill()
    async with tus_on(start_server("--upload-ttl", "1s")) as client:
        await until_head(Tus(client), url, 410)


async def test_a_body_that_never_ends_is_read_no_further_than_the_file_is_long(tus: Tus) -> None:
    url = await tus.create(1000)
    async with tus.slow(url, 0, Transfer_Encoding="chunked") as sending:
        await sending.send(b"1\r\nx\r\n")
        await tus.until_durable(url, 1)
        await cancel(tus, url)
        assert (await sending.answer()).status_code == 410
        with pytest.raises(ConnectionError):  # noqa: PT012 - it takes as long as it takes
            async with asyncio.timeout(20):
                while True:
                    await sending.send(b"400\r\n" + b"x" * 1024 + b"\r\n")
                    await asyncio.sleep(0.01)


async def test_a_body_that_rests_is_read_no_longer_than_an_idle_upload(start_server: StartServer) -> None:
    async with tus_on(start_server("--idle-timeout", "500ms")) as client:
        tus = Tus(client)
        url = await tus.create(1000)
        async with tus.slow(url, 1000) as sending:
            await sending.send(b"x")
            await cancel(tus, url)
            assert (await sending.answer()).status_code in {410, 503}
            await sending.closed(20)


async def test_it_counts_as_an_open_upload_meanwhile(start_server: StartServer) -> None:
    async with tus_on(start_server("--max-uploads", "1")) as client:
        tus = Tus(client)
        url, other = await tus.create(10), await tus.create(1)
        async with cancelled_under(tus, url, 10, 5) as sending:
            await sending.answer()
            assert (await tus.append(other, 0, b"x")).status_code == 429
            await sending.send(b"67890")
            assert (await sending.ask("HEAD", url)).status_code == 410
            assert (await tus.append(other, 0, b"x")).status_code == 204


async def test_a_drain_does_not_wait_for_a_body_that_nobody_wants(start_server: StartServer) -> None:
    server = start_server("--drain-grace", "60s")
    async with tus_on(server) as client:
        tus = Tus(client)
        url = await tus.create(1000)
        async with cancelled_under(tus, url, 1000, 10) as sending:
            await sending.answer()
            assert await asyncio.wait_for(asyncio.to_thread(server.terminate), 20) == 0
    assert not [line for line in server.log if line["level"] == "error"]
    async with tus_on(start_server()) as client:
        assert await head(Tus(client), url) == (200, "10")


# Other last words ----------------------------------------------------------------------------------------------------


async def test_who_announces_what_cannot_be_is_told_so_after_its_bytes(tus: Tus) -> None:
    bad = {"Upload_Length": str(MIB), "Upload_Metadata": encoded(filename="../x")}
    async with tus.slow("", MIB, 0, "POST", **bad) as one:
        answer = await one.answer()
        assert (answer.status_code, reason(answer)) == (400, "INVALID_FIELD")
        await asyncio.sleep(LONG_SECONDS)
        await one.send(b"x" * MIB)
        assert (await one.ask("OPTIONS", PATH)).status_code == 204


@pytest.mark.parametrize("headers", [{"Upload-Offset": "0"}, {"Upload-Offset": "7"}])
async def test_who_may_go_on_is_not_made_to_send_it_all(tus: Tus, headers: dict[str, str]) -> None:
    """At 404 and 409 a client asks on, whether it has heard them or not."""
    url = f"{PATH}/unknown" if headers["Upload-Offset"] == "0" else await tus.create(MIB)
    async with tus.slow(url, MIB, int(headers["Upload-Offset"])) as sending:
        answer = await sending.answer()
        assert answer.status_code in {404, 409}
        assert answer.headers["connection"] == "close"
        await sending.closed(30)


# HEAD ----------------------------------------------------------------------------------------------------------------


async def test_a_client_that_asks_a_busy_server_for_its_offset_asks_again(start_server: StartServer) -> None:
    """At 429 or 503 it would announce the file anew, and send it all once more."""
    server = start_server("--drain-grace", "30s")
    async with tus_on(server) as client:
        tus = Tus(client)
        url = await tus.create(10)
        async with tus.slow(url, 10) as sending, httpx.AsyncClient(base_url=server.url) as other:
            await other.get("/healthz")
            await sending.send(b"12345")
            await tus.until_durable(url, 5)
            stopping = asyncio.create_task(asyncio.to_thread(server.terminate))
            await asyncio.to_thread(server.wait_log, lambda line: line.get("event") == "draining")
            assert (await Tus(other).ask("HEAD", url)).status_code == 423
        assert await stopping == 0


# Creations that nobody hears of --------------------------------------------------------------------------------------


async def the_file(tus: Tus, status: str) -> dict[str, str]:
    """The one file there is, once it is in a state."""
    found: list[dict[str, str]] = []

    async def is_there() -> bool:
        found[:] = (await tus.client.get("/api/v1/files")).json()["files"]
        return [file["status"] for file in found] == [f"UPLOAD_STATUS_{status}"]

    await eventually(is_there)
    return found[0]


@pytest.mark.parametrize("with_bytes", [True, False])
async def test_a_creation_whose_connection_breaks_before_its_answer_leaves_nothing(
    start_server: StartServer, with_bytes: bool
) -> None:
    server: ServerProcess = start_server()
    async with tus_on(server) as client:
        tus = Tus(client)
        named = {"Upload_Length": str(MIB)} | ({"Content_Type": BYTES} if with_bytes else {})
        if not with_bytes:
            # It finds the request and the end of its connection together: else a slow machine's answer is in time.
            os.kill(server.pid, signal.SIGSTOP)
        async with tus.slow("", MIB if with_bytes else 0, 0, "POST", **named) as creating:
            if with_bytes:
                await creating.send(b"x" * 1000)
                await tus.until_durable(f"{PATH}/{(await the_file(tus, 'UPLOADING'))['file_id']}", 1000)
        os.kill(server.pid, signal.SIGCONT)
        file = await the_file(tus, "CANCELLED")
        assert (file["cancelled_by"], "connection broke" in file["cancel_reason"]) == ("system", True)
        events = (await client.get("/api/v1/audit/events", params={"file_id": file["file_id"]})).json()["events"]
        assert (events[-1]["source"], events[-1]["actor"]) == ("tus", "system")
        await gone_from_disk(server, file["file_id"])
        assert await head(tus, f"{PATH}/{file['file_id']}") == (410, None)


async def test_a_creation_that_is_told_where_to_go_on_can_go_on(start_server: StartServer) -> None:
    """Its address went out on a line that stood, so a cancel by the service would be nobody's wish."""
    server = start_server("--idle-timeout", "500ms")
    async with tus_on(server) as client:
        tus = Tus(client)
        async with tus.slow("", MIB, 0, "POST", Upload_Length=str(MIB), Content_Type=BYTES) as creating:
            await creating.send(b"x" * 1000)
            answer = await creating.answer()
            assert (answer.status_code, reason(answer)) == (503, "UPLOAD_IDLE")
            await creating.closed(20)
        location = answer.headers["location"]
        assert await head(tus, location) == (200, "1000")
        assert (await tus.append(location, 1000, b"x" * (MIB - 1000))).status_code == 204
