"""``make prove``: the long form. Histories for as long as told, then the model at length and every mutant; figures."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

from prove.checkers import CHECKERS, Violation, check
from prove.histories import Options, World
from prove.history import History, parse
from prove.servers import starter

_SERVER = ("--websocket-grace", "0.3", "--drain-grace", "0")
_SIZES = (0, 1, 1000, 70_000, 1_500_000)
_BUSY = Options("", seconds=8, callers=6, senders=8, sizes=_SIZES, pause=0.004)

# What the server is put through, with its options and circumstances; histories take turns.
PROFILES: dict[str, tuple[Options, tuple[str, ...], str]] = {
    "quiet": (_BUSY, (), ""),
    "kills": (replace(_BUSY, kills=3), (), ""),
    "drains": (replace(_BUSY, stops=3), (), ""),
    "freezes": (replace(_BUSY, freezes=4), (), ""),
    # Uploads expire at every start.
    "expiry": (replace(_BUSY, kills=2, stops=3, ttl=1.0), ("--upload-ttl", "1s"), ""),
    "power cuts": (replace(_BUSY, kills=2, sizes=(1000, 70_000, 300_000), pause=0.05), (), "volatile_disk"),
    "little room": (
        replace(_BUSY, watchers=10, batch=30),
        ("--watch-history", "1", "--linger", "0", "--bookmark-interval", "0.1"),
        "",
    ),
    "one file": (replace(_BUSY, live=1, senders=10, sizes=(0, 1000, 70_000), pause=0.02), (), ""),
    "impatience": (replace(_BUSY, impatient=0.6), (), ""),
    "all at once": (replace(_BUSY, kills=1, stops=1, freezes=1, impatient=0.2), ("--watch-history", "3"), ""),
}


async def record(options: Options, folder: Path, server: tuple[str, ...], mutants: str) -> History:
    """Record one history; its lines are left in ``folder``."""
    world = World(starter(folder / "data", (*_SERVER, *server), mutants), options)
    try:
        await world.run()
    finally:
        world.recorder.save(folder / "history.jsonl")
        world.server.kill()
    return parse(world.recorder.lines)


def one_history(profile: str, seed: str, totals: Counter[str]) -> list[Violation]:
    """Record and check one history, and count what it holds."""
    options, server, mutants = PROFILES[profile]
    folder = Path(tempfile.mkdtemp(prefix="prove-"))
    history = asyncio.run(record(replace(options, seed=seed), folder, server, mutants))
    found = check(history)
    counted = {
        "histories": 1,
        "calls": len(history.ops),
        "calls with an unknown end": sum(op.outcome == "unknown" for op in history.ops),
        "watch messages": sum(len(stream.heard) for watch in history.watches for stream in watch.streams),
        "resumptions": sum(len(watch.streams) for watch in history.watches),
        "files": len(history.tables.files),
        "checks": len(CHECKERS),
        "server stops": options.kills + options.stops + options.freezes,
        "violations": len(found),
    }
    totals.update(counted)
    _say(f"{profile:12} seed {seed}: " + ", ".join(f"{value} {name}" for name, value in counted.items()))
    if found:
        _say(f"  left in {folder}", *(f"  {violation}" for violation in found[:5]))
    else:
        shutil.rmtree(folder)
    return found


def _say(*lines: str) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()


def suites(scale: int) -> int:
    """The model at length, and every mutant; returns pytest's exit code."""
    here = Path(__file__).parent
    environment = {**os.environ, "PROVE_SCALE": str(scale)}
    command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "--timeout", str(100 * scale)]
    files = [here / "test_model.py", here / "test_mutants.py", here / "test_checkers.py"]
    return subprocess.run([*command, *map(str, files)], env=environment, check=False).returncode


def main() -> int:
    """Return 0 when nothing was found."""
    parser = argparse.ArgumentParser(prog="make prove")
    parser.add_argument("--minutes", type=float, default=5.0, help="for histories")
    parser.add_argument("--seed", default=str(random.SystemRandom().getrandbits(32)), help="of what is tried")
    parser.add_argument("--profile", choices=PROFILES, action="append", help="only these")
    parser.add_argument("--scale", type=int, default=5, help="times the short form's examples of the model; 0: none")
    options = parser.parse_args()
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    totals: Counter[str] = Counter()
    end = time.monotonic() + options.minutes * 60
    profiles = options.profile or list(PROFILES)
    number = 0
    while time.monotonic() < end:
        one_history(profiles[number % len(profiles)], f"{options.seed}.{number}", totals)
        number += 1
    for name, value in totals.items():
        _say(f"{value:>9} {name}")
    failed = suites(options.scale) if options.scale else 0
    return 1 if totals["violations"] or failed else 0


if __name__ == "__main__":
    sys.exit(main())
