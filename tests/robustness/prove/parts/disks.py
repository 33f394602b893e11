"""Disks that fail under traffic: our own library strikes exactly, libfiu at random."""

from __future__ import annotations

import asyncio
import random
import shutil
import tempfile
from pathlib import Path

import pytest

from robustness.faults.disks import Fiu
from robustness.faults.io_world import FailingDiskWorld, endure
from robustness.faults.plans import fiu_phases, phases_at_random
from robustness.faults.shim import FaultyDisk
from robustness.prove.history import parse
from robustness.prove.parts.figures import Figures, Share
from robustness.prove.parts.histories import count

_PHASES = 15


def run(share: Share, figures: Figures) -> None:
    """Fail one disk after the other; every third by libfiu."""
    for number, seed in enumerate(share.turns()):
        folder = Path(tempfile.mkdtemp(prefix="disk-"))
        disk = None
        if number % 3 == 2:
            try:
                fiu = Fiu(folder / "fiu")
            except pytest.skip.Exception as reason:
                figures.notes.append(str(reason))
                continue
            world = FailingDiskWorld(folder / "data", fiu_phases(fiu), fiu.environment, seed)
        else:
            disk = FaultyDisk(folder / "shim", folder / "data")
            phases = phases_at_random(disk, random.Random(seed), _PHASES)
            world = FailingDiskWorld(folder / "data", phases, disk.environment, seed)
        _endure(world, folder, figures, share, seed)
        figures.counts["faults in calls to the disk"] += disk.struck_in_all if disk else 0


def _endure(world: FailingDiskWorld, folder: Path, figures: Figures, share: Share, seed: str) -> None:
    violations = asyncio.run(endure(world, folder))
    told = world.errors()
    figures.counts["phases of a failing disk"] += world.phases
    for reason in ("DATABASE_FAILURE", "STORAGE_FAILURE", "STORAGE_FULL", "OUTCOME_UNKNOWN"):
        figures.counts[f"answered {reason}"] += told[reason]
    count(figures, parse(world.recorder.lines))
    figures.at_worst("slowest recovery, seconds", world.slowest_recovery)
    figures.add_violations(map(str, violations), folder)
    if not violations:
        shutil.rmtree(folder)
    recovered = f"recovered within {world.slowest_recovery:.1f} s"
    share.say(f"seed {seed}: {world.phases} phases, {recovered}, {len(violations)} violations")
