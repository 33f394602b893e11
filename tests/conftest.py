"""Fixtures of the whole suite: real server processes and channels to them."""

from __future__ import annotations

import itertools
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import httpx
import pytest
import pytest_asyncio

from support.grpc_upload import stub_on
from support.process import ServerProcess, StartServer
from support.tokens import Tokens, tokens_in

if TYPE_CHECKING:
    from upload.v1.upload_pb2_grpc import UploadServiceAsyncStub as Stub


# What a client of httpx waits for where a test says nothing: five seconds are too few on a busy machine.
for _what in ("connect", "read", "write", "pool"):
    setattr(httpx._config.DEFAULT_TIMEOUT_CONFIG, _what, 60.0)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Tests wait for disks, timers and other processes half of their time: two workers share a processor."""
    return 2 * (os.cpu_count() or 1)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Each worker begins with its share of the tests that may take long, else one ends minutes after the others.

    A worker is given an equal part of the list, and steals from another's end when it has done its own.
    """
    workers = int(getattr(config, "workerinput", {}).get("workercount", 1))
    long = [item for item in items if item.get_closest_marker("timeout")]
    short = (item for item in items if not item.get_closest_marker("timeout"))
    ordered: list[pytest.Item] = []
    for worker in range(workers):
        end = len(ordered) + (len(items) - len(ordered)) // (workers - worker)
        ordered += long[worker::workers]
        ordered += itertools.islice(short, max(0, end - len(ordered)))
    items[:] = ordered


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One server for all tests of a worker that need no options of their own."""
    with ServerProcess(tmp_path_factory.mktemp("server")) as process:
        yield process


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Tokens:
    """A tokens file for a server of the module's own, with somebody of each role."""
    return tokens_in(tmp_path_factory.mktemp("tokens"))


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[StartServer]:
    """Start servers with options; each on ``tmp_path / "data"`` unless told otherwise. Killed after the test."""
    running: list[ServerProcess] = []

    def start(*options: str, data_dir: Path | None = None, environment: dict[str, str] | None = None) -> ServerProcess:
        process = ServerProcess(data_dir or tmp_path / "data", options, environment)
        running.append(process)
        return process

    yield start
    for process in running:
        process.kill()


@pytest_asyncio.fixture
async def channel(server: ServerProcess) -> AsyncIterator[grpc.aio.Channel]:
    """A channel of its own connection to the shared server."""
    async with open_channel(server) as opened:
        yield opened


@pytest.fixture
def stub(channel: grpc.aio.Channel) -> Stub:
    """The generated stub on the shared server."""
    return stub_on(channel)


def open_channel(server: ServerProcess, options: Sequence[tuple[str, int]] = ()) -> grpc.aio.Channel:
    """Return a channel whose connection is shared with no other channel."""
    return grpc.aio.insecure_channel(server.target, options=[("grpc.use_local_subchannel_pool", 1), *options])
