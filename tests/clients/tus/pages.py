"""Pages in which clients that nobody here wrote upload through a slow line, with all their defaults."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from clients.tus.client import PATH, Tus, tus_on
from support.browsers import BROWSERS, BrowserPage
from support.doors import Json
from support.eventually import eventually
from support.process import ServerProcess
from support.proxy import FaultProxy, fault_proxy

MIB: Final = 1024 * 1024
SIZE: Final = 24 * MIB
# The rest takes some three seconds and a half: longer than a server would wait for a client that does not listen.
BYTES_PER_SECOND: Final = 6 * MIB
# How a page's client begins, and how it has ended. Uppy's page tries again faster unless told its default.
_START: Final = {
    "tus": "({endpoint, size}) => start({endpoint, size})",
    "uppy": "({endpoint, size}) => void start(endpoint, size, {retryDelays: [100, 1000, 3000, 5000]})",
}
_ENDED: Final = {
    "tus": "() => state.ended",
    "uppy": "() => events.find(({event}) => event !== 'complete') ?? null",
}


class Sending:
    """One upload from a page."""

    def __init__(self, page: BrowserPage, network: FaultProxy, tus: Tus, client: str) -> None:
        self.page = page
        self.network = network
        self.tus = tus
        self._client = client

    async def until_ended(self) -> Any:
        """Wait until the client has given up or is done; returns what it said."""

        async def is_so() -> bool:
            return await self._ended() is not None

        await eventually(is_so)
        return await self._ended()

    async def _ended(self) -> Any:
        return await self.page.evaluate(_ENDED[self._client])

    async def has_durable_bytes(self) -> bool:
        """Whether anything has arrived."""
        return any(int(file["bytes_received"]) for file in await self.files())

    async def files(self) -> list[Json]:
        """Every file there is: a client that begins anew makes another."""
        found: list[Json] = (await self.tus.client.get("/api/v1/files")).json()["files"]
        return found

    async def cancel(self) -> None:
        """Cancel the one file there is, as anybody can."""
        (file,) = await self.files()
        answer = await self.tus.client.post(f"/api/v1/upload/cancel/{file['file_id']}", json={"reason": "not wanted"})
        assert answer.status_code == 200


@asynccontextmanager
async def sending(server: ServerProcess, origin: str, engine: str, client: str = "tus") -> AsyncIterator[Sending]:
    """Begin an upload in a page of ``origin``; yields once bytes of it are durable."""
    async with (
        fault_proxy(server.http_port, BYTES_PER_SECOND) as network,
        tus_on(server) as http,
        BROWSERS[engine]() as page,
    ):
        await page.goto(origin)
        await page.evaluate(_START[client], {"endpoint": f"{network.url}{PATH}", "size": SIZE})
        one = Sending(page, network, Tus(http), client)
        await eventually(one.has_durable_bytes)
        yield one
