"""Killed at every named point and at any moment, under uploads, cancels and watches, the service keeps its promises."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from robustness.faults.crashes import LAUNCHER, Crash, report, survive
from robustness.faults.plans import at_points
from robustness.faults.points import RUNNING_POINTS, START_POINTS, STOP_POINTS, Point, PointRotten, find
from robustness.faults.shim import Fault, FaultyDisk, Mode

pytestmark = pytest.mark.timeout(300)


# In three parts, so that a test run can share them out.
@pytest.mark.parametrize("part", [0, 1, 2])
async def test_killed_at_named_points(tmp_path: Path, part: int) -> None:
    crashes = at_points(RUNNING_POINTS[part::3], random.Random(f"named {part}"))

    world, violations = await survive(tmp_path / "data", crashes, seed=f"named {part}")

    print(report(world))
    assert [str(found) for found in violations] == [], f"and more; the history is in {tmp_path}"
    assert world.survived.total() == len(crashes)
    # The others did not come by their point in time: they died at some moment all the same.
    assert world.survived["random moment"] <= len(crashes) // 3


async def test_killed_while_it_starts_or_stops(tmp_path: Path) -> None:
    choose = random.Random("starts and stops")
    starts, stops = at_points(START_POINTS, choose), at_points(STOP_POINTS, choose)
    crashes = [crash for pair in zip(stops, starts, strict=True) for crash in pair]

    world, violations = await survive(tmp_path / "data", crashes, seed="starts and stops")

    print(report(world))
    assert [str(found) for found in violations] == [], f"and more; the history is in {tmp_path}"
    assert set(world.survived) == {*START_POINTS, *STOP_POINTS}


# Inside SQLite too: its log is written by many calls a commit. Half of a write is done before the end comes.
async def test_killed_in_calls_to_the_disk(tmp_path: Path) -> None:
    choose = random.Random("disk calls")
    crashes = []
    for i in range(14):
        mode = (Mode.KILL_BEFORE, Mode.KILL_HALF, Mode.KILL_AFTER)[i % 3]
        fault = Fault(mode, skip=int(2 ** (choose.random() * 9)) - 1)
        disk = FaultyDisk(tmp_path / str(i), tmp_path / "data", fault)
        crashes.append(Crash(environment=disk.environment))

    world, violations = await survive(tmp_path / "data", crashes, seed="disk calls")

    print(report(world))
    assert [str(found) for found in violations] == [], f"and more; the history is in {tmp_path}"
    assert world.survived["disk call"] >= 10


def test_a_point_whose_function_is_gone_is_told() -> None:
    with pytest.raises(PointRotten, match=r"DiskFile\.renamed_since is gone"):
        find(Point("upload_server.sink.disk.file", "DiskFile.renamed_since"))


def test_an_unknown_point_is_refused() -> None:
    tried = subprocess.run(
        [sys.executable, LAUNCHER, "nowhere.before", "", "serve"], capture_output=True, text=True, check=False
    )
    assert tried.returncode != 0
    assert "no such point: nowhere.before" in tried.stderr
