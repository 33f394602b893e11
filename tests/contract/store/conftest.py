"""Every store of the service; a new one is one more parameter."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from contract.store.kit import Backend
from upload_server.store.open import open_store
from upload_server.store.options import StoreOptions
from upload_server.store.protocol import Store


class SqliteBackend:
    """A SQLite file in a folder of the test's own."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def url(self) -> str:
        return f"sqlite:///{self.path}"

    async def open(self, options: StoreOptions | None = None) -> Store:
        return await open_store(self.url, options)


@pytest.fixture(params=["sqlite"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Backend:
    makers = {"sqlite": lambda: SqliteBackend(tmp_path / "upload.db")}
    return makers[request.param]()


@pytest_asyncio.fixture
async def store(backend: Backend) -> AsyncIterator[Store]:
    opened = await backend.open()
    yield opened
    await opened.close()
