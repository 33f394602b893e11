"""Cancelled uploads and broken watches by the thousand on one server, then a look at what it holds."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path

from robustness.faults.small_cache import SmallCacheServer
from robustness.faults.soak import soak
from robustness.prove.parts.figures import Figures, Share

# A short soak cannot tell a leak of less from memory that is still finding its size.
_MOST_BYTES_A_DEED = 512
_MOST_GROWTH = 24 * 2**20
_LONG_SECONDS = 300.0


def run(share: Share, figures: Figures) -> None:
    """Soak once, for the whole share."""
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    with SmallCacheServer(folder / "data", ("--websocket-grace", "0.2", "--idle-timeout", "3")) as server:
        try:
            soaked = asyncio.run(soak(server, share.seconds, seed=share.seed))
        except AssertionError as error:
            figures.add_violations([f"it does not come to rest: {error}"], folder)
            return
        loud = [line for line in server.log if line.get("level") in {"error", "critical"}]
    grown = soaked.memory[-1][1] - soaked.memory[0][1]
    share.say(str(soaked))
    figures.counts["deeds"] = soaked.deeds
    figures.worst["memory grown after the warm-up, MiB"] = grown / 2**20
    figures.worst["bytes of memory a deed"] = soaked.slope
    leaks = soaked.slope > _MOST_BYTES_A_DEED if share.seconds >= _LONG_SECONDS else grown > _MOST_GROWTH
    if leaks:
        figures.add_violations([f"memory grows: {soaked}"], folder)
    figures.add_violations([f"logged as an error: {line}" for line in loud[:5]], folder)
    if not figures.violations:
        shutil.rmtree(folder)
