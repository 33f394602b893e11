"""The short form of ``make soak``: after thousands of cancelled uploads and broken watches the server is as before."""

from __future__ import annotations

import asyncio

import pytest

from faults.soak import soak
from support.process import StartServer

# Leaks that grpcio is known for are of 80 bytes a call, ours would be of kilobytes: the short form sees only these.
_MOST_BYTES_A_DEED = 4096


@pytest.mark.timeout(180)
async def test_a_soak_leaves_the_server_as_it_was(start_server: StartServer) -> None:
    server = start_server("--websocket-grace", "0.2", "--idle-timeout", "3")

    figures = await soak(server, 24)

    print(figures)
    assert figures.deeds > 300
    assert figures.slope < _MOST_BYTES_A_DEED, figures
    async with asyncio.timeout(20):
        while server.stored_bytes():  # noqa: ASYNC110 - a folder tells nobody when it changes
            await asyncio.sleep(0.1)
    loud = [line for line in server.log if line.get("level") in {"error", "critical"}]
    assert loud == []
