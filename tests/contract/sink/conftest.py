"""Every sink of the service; a new one is one more line in ``SINKS``."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from support import object_store
from upload_server.sink.open import open_sink
from upload_server.sink.protocol import Sink

# The URL of an empty sink, given a folder that a test has to itself.
SINKS: dict[str, Callable[[Path], str]] = {
    "disk": lambda folder: (folder / "bytes").as_uri(),
    **{name: partial(object_store.url_in, name) for name in object_store.STORES},
}


@pytest.fixture(params=SINKS)
def sink(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sink:
    for name, value in object_store.environment().items():
        monkeypatch.setenv(name, value)
    return open_sink(SINKS[request.param](tmp_path))


@pytest.fixture
def file_id() -> str:
    return str(uuid.uuid4())
