"""The tus door with clients that nobody here wrote: tus-js-client in Node, Uppy in Chromium, tuspy in Python."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page
from tusclient.client import TusClient

from clients.tus.client import PATH, Tus, file_id_of, tus_on
from clients.tus.tools import NODE, NodeClient, client_page, tuspy
from support.chromium import launched_chromium
from support.ports import free_port
from support.process import ServerProcess, StartServer, gone_from_disk
from support.proxy import fault_proxy

MIB = 1024 * 1024
COMPLETED, CANCELLED = "UPLOAD_STATUS_COMPLETED", "UPLOAD_STATUS_CANCELLED"

pytestmark = pytest.mark.timeout(180)


async def uploadctl_cancel(server: ServerProcess, file_id: str) -> None:
    program = Path(sys.executable).parent / "uploadctl"
    command = [str(program), "--server", server.target, "cancel", file_id, "--reason", "not wanted"]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.DEVNULL)
    assert await process.wait() == 0


async def only_file(tus: Tus) -> dict[str, Any]:
    """The one file there is: a stopped client must not have begun a new one."""
    (file,) = (await tus.client.get("/api/v1/files")).json()["files"]
    found: dict[str, Any] = file
    return found


# tus-js-client -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"chunkSize": 3 * MIB, "uploadDataDuringCreation": True}])
async def test_tus_js_client_pauses_and_goes_on_also_when_the_server_was_killed(
    start_server: StartServer, options: dict[str, Any]
) -> None:
    server = start_server()
    async with (
        fault_proxy(server.http_port, 12 * MIB) as network,
        NodeClient(f"{network.url}{PATH}", 24 * MIB, pauseAt=8 * MIB, options=options) as client,
    ):
        paused = await client.hear("paused")
        server.kill()
        server = start_server()
        network.backend = server.http_port
        client.say("resume")
        while (await client.hear("progress"))["sent"] < 16 * MIB:
            pass
        # Now without a word: it comes back by itself.
        server.kill()
        server = start_server()
        network.backend = server.http_port
        done = await client.hear("success", "error")
        assert done["event"] == "success", done
        assert 423 not in client.answers("PATCH")
    async with tus_on(server) as http:
        file = await only_file(Tus(http))
        assert (file["file_id"], file["status"]) == (file_id_of(paused["url"]), COMPLETED)
        assert (file["sha256"], file["filename"]) == (done["sha256"], "from node.bin")


async def test_tus_js_client_terminates_while_it_sends(start_server: StartServer) -> None:
    server = start_server()
    async with (
        fault_proxy(server.http_port, 4 * MIB) as network,
        NodeClient(f"{network.url}{PATH}", 40 * MIB) as client,
        tus_on(server) as http,
    ):
        await client.hear("progress")
        client.say("terminate")
        done = await client.hear("terminated", "error")
        assert done["event"] == "terminated", done
        # At the first try, with no 423.
        assert (client.answers("DELETE"), client.answers("PATCH")) == ([204], [])
        assert (await only_file(Tus(http)))["status"] == CANCELLED
        await gone_from_disk(server, file_id_of(done["url"]))


async def test_tus_js_client_stops_when_somebody_else_cancels(start_server: StartServer) -> None:
    server = start_server()
    async with (
        fault_proxy(server.http_port, 4 * MIB) as network,
        NodeClient(f"{network.url}{PATH}", 40 * MIB) as client,
        tus_on(server) as http,
    ):
        await client.hear("progress")
        await uploadctl_cancel(server, (await only_file(Tus(http)))["file_id"])
        message = await client.hear("error", "success")
        assert message["event"] == "error"
        assert "UPLOAD_CANCELLED" in message["body"]
        assert (client.answers("PATCH"), client.answers("HEAD"), client.answers("POST")) == ([410], [], [201])
        assert (await only_file(Tus(http)))["status"] == CANCELLED


# Uppy ----------------------------------------------------------------------------------------------------------------


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with launched_chromium() as launched:
        yield launched


@pytest.fixture
def origin(tmp_path: Path) -> Iterator[str]:
    """Where Uppy's page comes from."""
    with client_page(tmp_path, "uppy") as served:
        yield served


@pytest_asyncio.fixture(loop_scope="module")
async def page(browser: Browser) -> AsyncIterator[Page]:
    """A page of its own for each test."""
    opened = await browser.new_page()
    yield opened
    await opened.close()


async def begin(page: Page, origin: str, endpoint: str, size: int, **options: Any) -> str:
    """Open the page and begin an upload; returns the SHA-256 of its bytes."""
    await page.goto(origin)
    digest: str = await page.evaluate(
        "([endpoint, size, options]) => start(endpoint, size, options)", [endpoint, size, options]
    )
    return digest


async def until_sent(page: Page, count: int) -> None:
    await page.wait_for_function("count => sent >= count", arg=count, timeout=60_000)


async def until_complete(page: Page) -> list[dict[str, Any]]:
    await page.wait_for_function("events.some(({event}) => event == 'complete')", timeout=60_000)
    events: list[dict[str, Any]] = await page.evaluate("events")
    return events


@pytest.mark.asyncio(loop_scope="module")
async def test_uppy_pauses_and_goes_on_also_when_the_server_was_killed(
    start_server: StartServer, origin: str, page: Page
) -> None:
    server = start_server("--allowed-origins", origin)
    async with fault_proxy(server.http_port, 12 * MIB) as network:
        digest = await begin(page, origin, f"{network.url}{PATH}", 24 * MIB, chunkSize=5 * MIB)
        await until_sent(page, 8 * MIB)
        await page.evaluate("uppy.pauseResume(fileId)")
        server.kill()
        server = start_server("--allowed-origins", origin)
        network.backend = server.http_port
        await page.evaluate("uppy.pauseResume(fileId)")
        await until_sent(page, 16 * MIB)
        server.kill()
        server = start_server("--allowed-origins", origin)
        network.backend = server.http_port
        assert (await until_complete(page))[-1] == {"event": "complete", "successful": 1, "failed": 0}
    async with tus_on(server) as http:
        file = await only_file(Tus(http))
        assert (file["status"], file["sha256"], file["filename"]) == (COMPLETED, digest, "from uppy.bin")


@pytest.mark.asyncio(loop_scope="module")
async def test_uppy_stops_with_a_clear_error_when_uploadctl_cancels(
    start_server: StartServer, origin: str, page: Page
) -> None:
    """One request carries the whole file, and the browser sends it to its end before it listens."""
    server = start_server("--allowed-origins", origin)
    async with fault_proxy(server.http_port, 4 * MIB) as network, tus_on(server) as http:
        await begin(page, origin, f"{network.url}{PATH}", 20 * MIB)
        await until_sent(page, 2 * MIB)
        file_id = (await only_file(Tus(http)))["file_id"]
        await uploadctl_cancel(server, file_id)
        events = await until_complete(page)
        assert [event["event"] for event in events] == ["error", "complete"]
        assert (events[0]["status"], events[1]["failed"]) == (410, 1)
        assert "The upload was cancelled" in events[0]["text"]
        assert "UPLOAD_CANCELLED" in events[0]["body"]
        # It has not begun anew, and nothing is left.
        assert (await only_file(Tus(http)))["status"] == CANCELLED
        await gone_from_disk(server, file_id)


@pytest.mark.asyncio(loop_scope="module")
async def test_uppy_removes_a_file_while_it_is_sent(start_server: StartServer, origin: str, page: Page) -> None:
    server = start_server("--allowed-origins", origin)
    statuses: list[tuple[str, int]] = []
    page.on("response", lambda response: statuses.append((response.request.method, response.status)))
    async with fault_proxy(server.http_port, 4 * MIB) as network, tus_on(server) as http:
        await begin(page, origin, f"{network.url}{PATH}", 40 * MIB)
        await until_sent(page, 2 * MIB)
        async with page.expect_response(lambda response: response.request.method == "DELETE"):
            await page.evaluate("uppy.removeFile(fileId)")
        file = await only_file(Tus(http))
        assert (file["status"], file["cancelled_by"]) == (CANCELLED, "user")
        assert [status for method, status in statuses if method == "DELETE"] == [204]
        assert 423 not in {status for _, status in statuses}


# tuspy ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def document(tmp_path: Path) -> Path:
    path = tmp_path / "document.bin"
    path.write_bytes(os.urandom(12 * MIB + 7))
    return path


async def test_tuspy_goes_on_with_checksums_when_the_server_was_killed(
    start_server: StartServer, document: Path, tmp_path: Path
) -> None:
    port = ("--http-port", str(free_port()))
    server = start_server(*port)
    first = await tuspy(server.url, document, tmp_path / "urls.json", str(5 * MIB))
    assert (first["status"], first["offset"]) == (0, 5 * MIB)
    server.kill()
    server = start_server(*port)
    second = await tuspy(server.url, document, tmp_path / "urls.json")
    assert (second["status"], second["url"], second["began_at"]) == (0, first["url"], 5 * MIB)
    async with tus_on(server) as http:
        file = await only_file(Tus(http))
        assert (file["status"], file["filename"]) == (COMPLETED, "from tuspy.bin")
        assert file["sha256"] == hashlib.sha256(await asyncio.to_thread(document.read_bytes)).hexdigest()


async def test_tuspy_stops_when_its_upload_is_terminated_under_it(
    start_server: StartServer, document: Path, tmp_path: Path
) -> None:
    server = start_server()
    async with fault_proxy(server.http_port, 2 * MIB) as network, tus_on(server) as http:
        sending = asyncio.create_task(tuspy(network.url, document, tmp_path / "urls.json"))
        async with asyncio.timeout(30):
            while network.sent < 2 * MIB:  # noqa: ASYNC110 - nobody is told
                await asyncio.sleep(0.02)
        file_id = (await only_file(Tus(http)))["file_id"]
        assert (await Tus(http).ask("DELETE", f"{PATH}/{file_id}")).status_code == 204
        assert (await sending)["status"] == 410
        assert (await only_file(Tus(http)))["status"] == CANCELLED


@pytest.mark.parametrize("size", [0, 1])
async def test_tuspy_sends_tiny_files(start_server: StartServer, size: int) -> None:
    server = start_server()
    uploader = TusClient(f"{server.url}{PATH}/").uploader(file_stream=io.BytesIO(b"x" * size))
    await asyncio.to_thread(uploader.upload)
    async with tus_on(server) as http:
        file = await only_file(Tus(http))
        assert (file["status"], file["size_bytes"], file["filename"]) == (COMPLETED, str(size), "unnamed")


def test_the_lock_file_names_no_host_that_packages_came_from() -> None:
    assert '"resolved"' not in (NODE / "package-lock.json").read_text()
