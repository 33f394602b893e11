"""``python -m robustness.faults.attacks NAME GRPC_PORT HTTP_PORT SECONDS [FILE_ID [RATE]]``: a hostile peer.

In a process of its own. What it sends is made before it begins, so that it is the server that works. It strikes RATE
times a second, ten times at once, or as fast as it can, a hundred times at once. Prints a line when it begins, and when
its time is up, as JSON, how often it struck and how it was sent away.
"""

from __future__ import annotations

import asyncio
import json
import sys

import uvloop

from robustness.faults.attacks import ATTACKS
from robustness.faults.attacks.target import Target


async def _main(name: str, grpc_port: str, http_port: str, seconds: str, file_id: str = "", rate: str = "0") -> None:
    target = Target(int(grpc_port), int(http_port), float(seconds), file_id, float(rate))
    await ATTACKS[name](target)
    print(json.dumps({"struck": target.counts, "ends": target.ends}))


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_main(*sys.argv[1:]))
