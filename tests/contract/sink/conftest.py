"""Every sink of the service; a new one is one more line in ``SINKS``."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from upload_server.sink.open import open_sink
from upload_server.sink.protocol import Sink

# The URL of an empty sink, given a folder that a test has to itself.
SINKS: dict[str, Callable[[Path], str]] = {"disk": lambda folder: (folder / "bytes").as_uri()}


@pytest.fixture(params=SINKS)
def sink(request: pytest.FixtureRequest, tmp_path: Path) -> Sink:
    return open_sink(SINKS[request.param](tmp_path))


@pytest.fixture
def file_id() -> str:
    return str(uuid.uuid4())
