"""Every store of the service."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from support.stores import STORES, url_in
from upload_server.store.open import StoreAt, store_at
from upload_server.store.protocol import Store


@pytest.fixture(params=STORES)
def kind(request: pytest.FixtureRequest) -> str:
    """Which of the stores."""
    return str(request.param)


@pytest.fixture
def url(kind: str, tmp_path: Path) -> str:
    """The URL of a store that is not there yet."""
    return url_in(tmp_path, kind)


@pytest.fixture
def backend(url: str) -> StoreAt:
    """A place where one store lives, however often it is opened."""
    return store_at(url)


@pytest_asyncio.fixture
async def store(backend: StoreAt) -> AsyncIterator[Store]:
    opened = await backend.open()
    yield opened
    await opened.close()
