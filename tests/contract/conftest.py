"""One suite, every door: `door` is each of them in turn."""

from __future__ import annotations

from collections.abc import AsyncIterator

import grpc
import httpx
import pytest
import pytest_asyncio

from support.doors import Door, GrpcDoor, HttpDoor
from support.process import ServerProcess


@pytest_asyncio.fixture
async def http(server: ServerProcess) -> AsyncIterator[httpx.AsyncClient]:
    """An HTTP client of the shared server."""
    async with httpx.AsyncClient(base_url=server.url, timeout=20) as client:
        yield client


@pytest.fixture(params=["grpc", "http"])
def door(request: pytest.FixtureRequest, channel: grpc.aio.Channel, http: httpx.AsyncClient) -> Door:
    """Each door in turn."""
    return GrpcDoor(channel) if request.param == "grpc" else HttpDoor(http)
