"""What a flood leaves free in the heap goes back to the system."""

from __future__ import annotations

import asyncio
import ctypes
import os
import resource
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest

from upload_server.process.heap import Heap

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs glibc")

MIB = 2**20
BLOCK = 64 * 1024


def resident() -> int:
    return int(psutil.Process(os.getpid()).memory_info().rss)


@pytest.fixture
def libc() -> ctypes.CDLL:
    found = ctypes.CDLL("libc.so.6")
    found.malloc.restype = ctypes.c_void_p
    found.malloc.argtypes = [ctypes.c_size_t]
    found.free.argtypes = [ctypes.c_void_p]
    return found


@pytest.fixture
def hole(libc: ctypes.CDLL) -> Iterator[None]:
    """200 MiB that lie free before a block that is in use."""
    blocks = [libc.malloc(BLOCK) for _ in range(200 * MIB // BLOCK)]
    for block in blocks:
        ctypes.memset(block, 1, BLOCK)
    last = libc.malloc(BLOCK)
    for block in blocks:
        libc.free(block)
    yield
    libc.free(last)


@pytest.mark.usefixtures("hole")
def test_what_lies_free_is_given_back_once() -> None:
    before = resident()
    heap = Heap()

    assert heap.give_back()
    assert before - resident() > 150 * MIB
    assert not heap.give_back()


@pytest.mark.usefixtures("hole")
async def test_without_a_free_descriptor_it_looks_again_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop that ends would end the server: it must outlive a flood that took every descriptor."""
    monkeypatch.setattr("upload_server.process.heap._LOOK_SECONDS", 0.0)
    before = resident()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    looking = asyncio.create_task(Heap().run())
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            Heap().give_back()
        ended, _ = await asyncio.wait([looking], timeout=0.2)
        assert not ended
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    async with asyncio.timeout(30):
        while before - resident() < 150 * MIB:  # noqa: ASYNC110 - no event from outside
            await asyncio.sleep(0.01)
    looking.cancel()


def test_little_is_kept() -> None:
    # In a process of its own: what other tests have left free here counts too.
    code = "from upload_server.process.heap import Heap; print(Heap().give_back())"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "False\n"
