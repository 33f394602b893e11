"""``make crash`` and ``make soak``: the long forms of the fault tests. Prints what was survived; exit code 1 if not."""

from __future__ import annotations

import argparse
import asyncio
import logging
import random
import sys
import tempfile
from collections import Counter
from pathlib import Path

from faults.crashes import Crash, report, survive
from faults.points import RUNNING_POINTS, START_POINTS, STOP_POINTS
from faults.shim import Fault, FaultyDisk, Mode
from faults.small_cache import SmallCacheServer
from faults.soak import soak

# Crashes of one data directory, before a new one is begun: histories are checked whole.
_ROUND = 25
# A short soak cannot tell a leak of less from memory that is still finding its size.
_MOST_BYTES_A_DEED = 512
_SHORT_MINUTES = 2.0


def plan(choose: random.Random, folder: Path) -> list[Crash]:
    """Crashes of all kinds at random: named points, calls to the disk, any moment."""
    crashes: list[Crash] = []
    points = (*RUNNING_POINTS, *RUNNING_POINTS, *START_POINTS, *STOP_POINTS)
    for i in range(_ROUND):
        kind = choose.choices(("point", "disk", "moment"), (5, 3, 2))[0]
        if kind == "point":
            point = choose.choice(points)
            # A server starts and stops once.
            nth = choose.randint(1, 12) if point in RUNNING_POINTS else 1
            crashes.append(Crash(f"{point}:{nth}"))
        elif kind == "disk":
            mode = choose.choice([Mode.KILL_BEFORE, Mode.KILL_HALF, Mode.KILL_AFTER])
            fault = Fault(mode, skip=int(2 ** (choose.random() * 10)) - 1)
            disk = FaultyDisk(folder / f"disk{i}", folder / "data", fault)
            crashes.append(Crash(environment=disk.environment))
            disk.close()
        else:
            # A point nobody comes by: killed when patience is over.
            crashes.append(Crash(f"fail.before:{1 << 30}", patience=0.05 + choose.random() * 1.5))
    return crashes


def crash(options: argparse.Namespace) -> int:
    """Crash rounds until there are as many crashes as wanted; returns how many promises were broken."""
    survived: Counter[str] = Counter()
    broken = 0
    number = 0
    while survived.total() < options.crashes:
        seed = f"{options.seed}.{number}"
        folder = Path(tempfile.mkdtemp(prefix="crash-"))
        world, violations = asyncio.run(survive(folder / "data", plan(random.Random(seed), folder), seed))
        survived.update(world.survived)
        print(f"seed {seed}: {report(world)}", flush=True)
        for violation in violations[:5]:
            print(f"  {violation}\n  left in {folder}", flush=True)
        broken += len(violations)
        number += 1
    print(f"{survived.total()} crashes, {broken} promises broken")
    for name, count in sorted(survived.items()):
        print(f"{count:>6} {name}")
    return broken


def run_soak(options: argparse.Namespace) -> int:
    """Soak a server of its own; returns how much was found."""
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    with SmallCacheServer(folder / "data", ("--websocket-grace", "0.2", "--idle-timeout", "3")) as server:
        figures = asyncio.run(soak(server, options.minutes * 60, seed=options.seed))
        loud = [line for line in server.log if line.get("level") in {"error", "critical"}]
    print(figures)
    for deeds, rss in figures.memory:
        print(f"{deeds:>9} deeds {rss / 2**20:8.1f} MiB")
    for line in loud[:5]:
        print(line)
    leaks = options.minutes >= _SHORT_MINUTES and figures.slope > _MOST_BYTES_A_DEED
    return len(loud) + leaks


def main() -> int:
    """Return 0 when nothing was found."""
    parser = argparse.ArgumentParser(prog="python -m faults")
    parser.add_argument("--seed", default=str(random.SystemRandom().getrandbits(32)), help="of what is tried")
    commands = parser.add_subparsers(required=True)
    crashing = commands.add_parser("crash", help="kill -9 at named points, in calls to the disk and at any moment")
    crashing.add_argument("--crashes", type=int, default=300)
    crashing.set_defaults(run=crash)
    soaking = commands.add_parser("soak", help="cancelled uploads and broken watches by the thousand")
    soaking.add_argument("--minutes", type=float, default=10.0)
    soaking.set_defaults(run=run_soak)
    options = parser.parse_args()
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    return 1 if options.run(options) else 0


if __name__ == "__main__":
    sys.exit(main())
