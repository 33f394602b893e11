"""A tus client that hides nothing, on the shared server."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from clients.tus.client import Tus, tus_on
from support.process import ServerProcess


@pytest_asyncio.fixture
async def tus(server: ServerProcess) -> AsyncIterator[Tus]:
    """On the shared server."""
    async with tus_on(server) as client:
        yield Tus(client)
