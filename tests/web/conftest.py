"""A real server on a free port of loopback."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest

from upload_server.web.asgi import Application
from upload_server.web.server import HttpServer, bind

Serve = Callable[..., Awaitable[HttpServer]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Start servers; they are stopped after the test."""
    async with AsyncExitStack() as stack:

        async def start(app: Application, host: str = "127.0.0.1", **options: float) -> HttpServer:
            server = HttpServer(app, bind(host, 0), **options)
            await server.start()
            stack.push_async_callback(server.stop)
            return server

        yield start
