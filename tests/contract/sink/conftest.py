"""Every sink of the service; a new one is one more parameter."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from upload_server.sink.disk import DiskSink
from upload_server.sink.protocol import Sink


@pytest.fixture(params=["disk"])
def sink(request: pytest.FixtureRequest, tmp_path: Path) -> Sink:
    makers = {"disk": lambda: DiskSink(tmp_path / "bytes")}
    return makers[request.param]()


@pytest.fixture
def file_id() -> str:
    return str(uuid.uuid4())
