"""How a rival is run: on a free port, with the settings that its command line names."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import grpc
import uvloop


async def serve_until_killed(server: grpc.aio.Server) -> None:
    """Serve on a free port, printed on the first line."""
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    await server.start()
    await server.wait_for_termination()


def run(serve: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run ``serve``; ``batch`` and ``uvloop`` on the command line are the settings that our server may have."""
    if "batch" in sys.argv:
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop if "uvloop" in sys.argv else None) as runner:
        runner.run(serve())
