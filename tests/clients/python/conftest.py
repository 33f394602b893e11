"""Fixtures of the client's tests: a scripted server, and clients of both kinds for it and for the real one."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from clients.python.scripted import Running, start
from support.process import ServerProcess
from support.proxy import FaultProxy, fault_proxy
from upload import AsyncClient, Client

Calls = Callable[..., Awaitable[Any]]


@asynccontextmanager
async def calls(kind: str, target: str) -> AsyncIterator[Calls]:
    """Call a method of a client by name: of the asyncio client, or of the blocking one in a thread.

    Iterators come back as lists.
    """
    if kind == "asyncio":
        async with AsyncClient(target, timeout=20) as client:

            async def call_async(method: str, *args: Any, **kwargs: Any) -> Any:
                result = getattr(client, method)(*args, **kwargs)
                return [item async for item in result] if hasattr(result, "__aiter__") else await result

            yield call_async
        return
    with Client(target, timeout=20) as blocking:

        def run(method: str, *args: Any, **kwargs: Any) -> Any:
            result = getattr(blocking, method)(*args, **kwargs)
            return list(result) if hasattr(result, "__next__") else result

        async def call_blocking(method: str, *args: Any, **kwargs: Any) -> Any:
            return await asyncio.to_thread(run, method, *args, **kwargs)

        yield call_blocking


@pytest.fixture(params=["asyncio", "blocking"])
def kind(request: pytest.FixtureRequest) -> str:
    """Which of the two clients a test uses."""
    return str(request.param)


@pytest.fixture
async def scripted() -> AsyncIterator[Running]:
    """A scripted server."""
    running = await start()
    yield running
    await running.stop()


@pytest.fixture
async def call(kind: str, scripted: Running) -> AsyncIterator[Calls]:
    """A client of the scripted server."""
    async with calls(kind, scripted.target) as call:
        yield call


@pytest.fixture
async def proxy(server: ServerProcess) -> AsyncIterator[FaultProxy]:
    """A proxy to the real server, whose connections can be cut."""
    async with fault_proxy(server.grpc_port) as proxy:
        yield proxy


@pytest.fixture
async def real(kind: str, proxy: FaultProxy) -> AsyncIterator[Calls]:
    """A client of the real server, through the proxy."""
    async with calls(kind, proxy.target) as call:
        yield call


@dataclass(frozen=True)
class SourceFile:
    """A file on disk and what is in it."""

    path: Path
    content: bytes

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()


@pytest.fixture
def source(tmp_path: Path) -> SourceFile:
    """A file of 3 MiB and a bit, each 4 bytes different."""
    path = tmp_path / "report.pdf"
    content = b"".join(number.to_bytes(4, "big") for number in range(800_001))
    path.write_bytes(content)
    return SourceFile(path, content)
