"""`make hops` counts a cancel through a whole server, and names its functions in order."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_hops_of_a_cancel_are_counted_and_listed() -> None:
    command = [sys.executable, "-m", "tools.hops", "--rounds", "1", "--list"]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    counts = dict(re.findall(r"^(\w.*?) +(\d+) functions", done.stdout, re.MULTILINE))
    assert list(counts) == [
        f"{door}, {what}" for what in ("pending file", "with a stream and a watcher") for door in ("gRPC", "HTTP")
    ]
    over_grpc, over_http, *listeners = (int(count) for count in counts.values())
    assert 20 < over_grpc < over_http
    assert over_grpc < min(listeners)
    names = done.stdout.splitlines()
    door = next(i for i, line in enumerate(names) if line.endswith(".CancelFile"))
    store = next(i for i, line in enumerate(names) if "store/commands" in line)
    assert door < store
    assert sum(line.startswith("    ") for line in names) == over_grpc + over_http + sum(listeners)
