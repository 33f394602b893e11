"""A real server on a free port of loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any

import pytest
import uvloop

from upload_server.doors.http.asgi import Application
from upload_server.doors.http.server import HttpServer, bind

Serve = Callable[..., Awaitable[HttpServer]]
LoopFactory = Callable[[], asyncio.AbstractEventLoop]


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, LoopFactory]:
    """Sockets are tested on the loop that the server uses; how they close or are lent, on Python's own as well."""
    if item.path.name in {"test_close_codes.py", "test_pump.py", "test_tls.py"}:
        return {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}
    if item.path.name == "test_websocket.py":
        return {"uvloop": uvloop.new_event_loop}
    return {"asyncio": asyncio.new_event_loop}


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Start servers; they are stopped after the test."""
    async with AsyncExitStack() as stack:

        async def start(app: Application, host: str = "127.0.0.1", **options: Any) -> HttpServer:
            server = HttpServer(app, bind(host, 0), **options)
            await server.start()
            stack.push_async_callback(server.stop)
            return server

        yield start
