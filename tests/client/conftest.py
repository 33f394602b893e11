"""Fixtures of the client's tests: a scripted server, and clients of both kinds for it."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from client.scripted import Running, start
from upload import AsyncClient, Client


@pytest.fixture
async def scripted() -> AsyncIterator[Running]:
    running = await start()
    yield running
    await running.stop()


Calls = Callable[..., Awaitable[Any]]


@pytest.fixture(params=["asyncio", "blocking"])
async def call(request: pytest.FixtureRequest, scripted: Running) -> AsyncIterator[Calls]:
    """Call a method of a client by name: of the asyncio client, and of the blocking one in a thread.

    Iterators come back as lists.
    """
    if request.param == "asyncio":
        async with AsyncClient(scripted.target, timeout=10) as client:

            async def call_async(method: str, *args: Any, **kwargs: Any) -> Any:
                result = getattr(client, method)(*args, **kwargs)
                return [item async for item in result] if hasattr(result, "__aiter__") else await result

            yield call_async
        return
    blocking = Client(scripted.target, timeout=10)

    def run(method: str, *args: Any, **kwargs: Any) -> Any:
        result = getattr(blocking, method)(*args, **kwargs)
        return list(result) if hasattr(result, "__next__") else result

    async def call_blocking(method: str, *args: Any, **kwargs: Any) -> Any:
        return await asyncio.to_thread(run, method, *args, **kwargs)

    yield call_blocking
    blocking.close()


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
