"""What clients that nobody here wrote do when somebody cancels under them: they stop for good, and say why.

The same with a line that breaks around the cancel, and with Uppy, is in ``cut_lines.py``; ``make prove`` runs it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from clients.tus.client import PATH, Tus, tus_on
from clients.tus.pages import BYTES_PER_SECOND, MIB, SIZE, Sending, sending
from clients.tus.tools import NodeClient, client_page, tuspy
from support.browsers import BROWSERS
from support.process import StartServer
from support.proxy import fault_proxy

CANCELLED, COMPLETED = "UPLOAD_STATUS_CANCELLED", "UPLOAD_STATUS_COMPLETED"

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def origin(tmp_path: Path) -> Iterator[str]:
    with client_page(tmp_path, "tus") as served:
        yield served


@pytest.mark.parametrize("engine", BROWSERS)
async def test_a_browser_stops_for_good_and_a_person_can_begin_anew(
    start_server: StartServer, origin: str, engine: str
) -> None:
    server = start_server("--allowed-origins", origin)
    async with sending(server, origin, engine) as one:
        await one.cancel()
        ended = await one.until_ended()
        assert ended["event"] == "error"
        assert "UPLOAD_CANCELLED" in ended["body"]
        assert "not wanted" in ended["body"]
        # Announced once, told once; nobody asked again.
        assert await answers(one) == [["POST", 201], ["PATCH", 410]]
        assert [file["status"] for file in await one.files()] == [CANCELLED]
        one.network.up.throttle = 0
        await one.page.evaluate("() => again()")
        assert (await one.until_ended())["event"] == "success"
        assert (await answers(one))[2:] == [["HEAD", 410], ["POST", 201], ["PATCH", 204]]
        assert sorted(file["status"] for file in await one.files()) == [CANCELLED, COMPLETED]


async def answers(one: Sending) -> list[list[object]]:
    found: list[list[object]] = await one.page.evaluate("() => state.answers")
    return found


async def statuses(tus: Tus) -> list[str]:
    return sorted(file["status"] for file in (await tus.client.get("/api/v1/files")).json()["files"])


@pytest.mark.parametrize("cut", [False, True])
async def test_node_stops_for_good_also_when_its_line_breaks(start_server: StartServer, cut: bool) -> None:
    server = start_server()
    defaults = {"retryDelays": [0, 1000, 3000, 5000]}
    async with (
        fault_proxy(server.http_port, BYTES_PER_SECOND) as network,
        NodeClient(f"{network.url}{PATH}", SIZE, options=defaults) as client,
        tus_on(server) as http,
    ):
        tus = Tus(http)
        await client.hear("progress")
        file = await only_file(tus)
        await tus.until_durable(f"{PATH}/{file['file_id']}", 1)
        network.away = cut
        if cut:
            network.reset_all()
        await tus.client.post(f"/api/v1/upload/cancel/{file['file_id']}", json={"reason": "not wanted"})
        if cut:
            await asyncio.sleep(1)
            network.away = False
        ended = await client.hear("error", "success")
        assert ended["event"] == "error"
        assert "not wanted" in ended["body"]
        assert client.answers("POST") == [201]
        assert await statuses(tus) == [CANCELLED]


@pytest.mark.parametrize("retries", [0, 3])
async def test_tuspy_stops_for_good(start_server: StartServer, tmp_path: Path, retries: int) -> None:
    """All in one request, as it is by default: it sends that before it listens."""
    server = start_server()
    document = tmp_path / "document.bin"
    document.write_bytes(bytes(SIZE))
    async with fault_proxy(server.http_port, BYTES_PER_SECOND) as network, tus_on(server) as http:
        tus = Tus(http)
        how = ["0", str(SIZE), str(retries)]
        run = asyncio.create_task(tuspy(network.url, document, tmp_path / "urls.json", *how))
        while network.sent < 2 * MIB:  # noqa: ASYNC110 - nobody is told
            await asyncio.sleep(0.02)
        file = await only_file(tus)
        await tus.client.post(f"/api/v1/upload/cancel/{file['file_id']}", json={"reason": "not wanted"})
        assert (await run)["status"] == 410
        assert await statuses(tus) == [CANCELLED]


async def only_file(tus: Tus) -> dict[str, str]:
    (file,) = (await tus.client.get("/api/v1/files")).json()["files"]
    found: dict[str, str] = file
    return found
