"""Histories of three servers on one database, and a folder or an object store, which the machine does its worst to."""

from __future__ import annotations

import asyncio
import math
import random
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

from robustness.prove.checkers import check
from robustness.prove.checkers.nodes import delays
from robustness.prove.cluster_world import CALM, DEEDS, OBJECT_DEEDS, record
from robustness.prove.parts.figures import Figures, Share
from robustness.prove.parts.histories import count
from support.object_store import STORES, installed
from support.postgres import why_missing

# So many strikes in one history.
_DEEDS = 5


def run(share: Share, figures: Figures) -> None:
    """Record and check histories; what strikes has its turns, whom it strikes the seed decides."""
    if missing := why_missing():
        figures.notes.append(missing)
        return
    left: list[str] = []
    heard: list[float] = []
    for turn, seed in enumerate(share.turns()):
        if len(left) < _DEEDS:
            more = list(DEEDS)
            random.Random(seed).shuffle(more)
            left += more
        deeds, left = left[:_DEEDS], left[_DEEDS:]
        # Each second history is on an object store, which is struck beside the servers.
        bucket = STORES["s3-seaweed"]().new_bucket() if installed() and turn % 2 else None
        deeds += list(OBJECT_DEEDS) if bucket else []
        random.Random(seed).shuffle(deeds)
        folder = Path(tempfile.mkdtemp(prefix="prove-"))
        history, world = asyncio.run(record(folder, deeds, replace(CALM, seed=seed), bucket=bucket))
        found = [str(each) for each in check(history)]
        count(figures, history)
        figures.counts["strikes"] += len(deeds)
        figures.counts["refused because the database was away"] += sum(
            op.answer.get("reason") == "DATABASE_FAILURE" for op in history.ops
        )
        for name, seconds in world.slowest.items():
            figures.at_worst(f"seconds until all work again after: {name}", seconds)
        heard += delays(history)
        figures.add_violations(found, folder)
        if not found:
            shutil.rmtree(folder)
        share.say(f"{', '.join(deeds)}, seed {seed}: {len(history.ops)} calls, {len(found)} violations")
    _count_delays(figures, sorted(heard))


def _count_delays(figures: Figures, heard: list[float]) -> None:
    figures.counts["cancels at one server, heard by the sender at another"] = len(heard)
    if heard:
        for share in (50, 99):
            figures.at_worst(f"p{share} of that, in ms", 1000 * heard[math.ceil(len(heard) * share / 100) - 1])
