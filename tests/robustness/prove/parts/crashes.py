"""Rounds of crashes: at named points, in calls to the disk, at any moment; then every promise is checked."""

from __future__ import annotations

import asyncio
import random
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from robustness.faults.crashes import report, survive
from robustness.faults.plans import crashes_at_random
from robustness.faults.points import RUNNING_POINTS, START_POINTS, STOP_POINTS
from robustness.prove.history import parse
from robustness.prove.parts.figures import Figures, Share
from robustness.prove.parts.histories import count

_POINTS = {*RUNNING_POINTS, *START_POINTS, *STOP_POINTS}
# Much of a crash is waiting: for a server to start, for its end to come.
_AT_ONCE = 2


def run(share: Share, figures: Figures) -> None:
    """Crash one data directory after the other, some at a time."""
    asyncio.run(_run(share, figures))


async def _run(share: Share, figures: Figures) -> None:
    turns = iter(share.turns())
    hit: set[str] = set()
    async with asyncio.TaskGroup() as group:
        for _ in range(_AT_ONCE):
            group.create_task(_rounds(turns, hit, share, figures))


async def _rounds(turns: Iterator[str], hit: set[str], share: Share, figures: Figures) -> None:
    for seed in turns:
        folder = Path(tempfile.mkdtemp(prefix="crash-"))
        plan = crashes_at_random(random.Random(seed), folder)
        world, violations = await survive(folder / "data", plan, seed)
        crashes = world.survived
        hit |= _POINTS & crashes.keys()
        figures.counts["crashes survived"] += crashes.total()
        figures.counts["at named points"] += sum(crashes[point] for point in _POINTS)
        figures.counts["in calls to the disk"] += crashes["disk call"]
        figures.counts["named points hit"] = len(hit)
        figures.counts["named points there are"] = len(_POINTS)
        count(figures, parse(world.recorder.lines))
        figures.at_worst("slowest start, seconds", world.slowest_start)
        figures.add_violations(map(str, violations), folder)
        if not violations:
            shutil.rmtree(folder)
        share.say(f"seed {seed}: {report(world)}, {len(violations)} violations")
