"""What clients that nobody here wrote do when somebody cancels under them: they stop for good, and say why.

The line is slow, so the rest of the file takes longer than any moment that a server may wait for a client to listen.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from clients.tus.client import PATH, Tus, eventually, tus_on
from clients.tus.tools import client_page
from support.browsers import BROWSERS, BrowserPage
from support.doors import Json
from support.process import ServerProcess, StartServer
from support.proxy import FaultProxy, fault_proxy

MIB = 1024 * 1024
SIZE = 24 * MIB
# The rest takes some three seconds and a half.
BYTES_PER_SECOND = 6 * MIB
CANCELLED, COMPLETED = "UPLOAD_STATUS_CANCELLED", "UPLOAD_STATUS_COMPLETED"

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def origin(tmp_path: Path) -> Iterator[str]:
    with client_page(tmp_path, "tus") as served:
        yield served


class Sending:
    """A page that uploads a file through a slow line."""

    def __init__(self, page: BrowserPage, network: FaultProxy, tus: Tus) -> None:
        self.page = page
        self.network = network
        self.tus = tus

    async def state(self) -> Any:
        return await self.page.evaluate("() => state")

    async def until_ended(self) -> Any:
        async def is_so() -> bool:
            return (await self.state())["ended"] is not None

        await eventually(is_so, 60)
        return (await self.state())["ended"]

    async def has_durable_bytes(self) -> bool:
        return any(int(file["bytes_received"]) for file in await self.files())

    async def files(self) -> list[Json]:
        found: list[Json] = (await self.tus.client.get("/api/v1/files")).json()["files"]
        return found

    async def cancel(self) -> None:
        """Cancel the one file there is, as anybody can."""
        (file,) = await self.files()
        answer = await self.tus.client.post(f"/api/v1/upload/cancel/{file['file_id']}", json={"reason": "not wanted"})
        assert answer.status_code == 200


@asynccontextmanager
async def sending(server: ServerProcess, origin: str, engine: str) -> AsyncIterator[Sending]:
    """Begin an upload with all defaults in a page; yields once bytes of it are durable."""
    async with (
        fault_proxy(server.http_port, BYTES_PER_SECOND) as network,
        tus_on(server) as http,
        BROWSERS[engine]() as page,
    ):
        tus = Tus(http)
        await page.goto(origin)
        await page.evaluate("order => start(order)", {"endpoint": f"{network.url}{PATH}", "size": SIZE})
        one = Sending(page, network, tus)
        await eventually(one.has_durable_bytes)
        yield one


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
        assert (await one.state())["answers"] == [["POST", 201], ["PATCH", 410]]
        assert [file["status"] for file in await one.files()] == [CANCELLED]
        one.network.up.throttle = 0
        await one.page.evaluate("() => again()")
        assert (await one.until_ended())["event"] == "success"
        assert (await one.state())["answers"][2:] == [["HEAD", 410], ["POST", 201], ["PATCH", 204]]
        assert [file["status"] for file in await one.files()] == [CANCELLED, COMPLETED]
