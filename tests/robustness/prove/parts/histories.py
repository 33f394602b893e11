"""Histories of many clients at once, profile by profile."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

from robustness.prove.checkers import check
from robustness.prove.history import History
from robustness.prove.parts.figures import Figures, Share
from robustness.prove.profiles import PROFILES, record


def run(share: Share, figures: Figures) -> None:
    """Record and check histories; profiles take turns."""
    profiles = share.profiles or tuple(PROFILES)
    for number, seed in enumerate(share.turns()):
        profile = profiles[number % len(profiles)]
        options, server, mutants = PROFILES[profile]
        folder = Path(tempfile.mkdtemp(prefix="prove-"))
        history = asyncio.run(record(replace(options, seed=seed), folder, server, mutants))
        found = [str(each) for each in check(history)]
        count(figures, history)
        figures.counts["kills, stops and freezes"] += options.kills + options.stops + options.freezes
        figures.add_violations(found, folder)
        if not found:
            shutil.rmtree(folder)
        share.say(f"{profile}, seed {seed}: {len(history.ops)} calls, {len(found)} violations")


def count(figures: Figures, history: History) -> None:
    """Add what a history holds."""
    figures.counts.update(
        {
            "histories": 1,
            "files": len(history.tables.files),
            "calls checked": len(history.ops),
            "of unknown end": sum(op.outcome == "unknown" for op in history.ops),
            "watch messages": sum(len(stream.heard) for watch in history.watches for stream in watch.streams),
            "watches resumed": sum(len(watch.streams) for watch in history.watches),
        }
    )
