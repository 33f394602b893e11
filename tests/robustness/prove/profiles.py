"""What servers are put through while a history is recorded, by name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from robustness.prove.histories import Options, World
from robustness.prove.history import History, parse
from robustness.prove.servers import starter

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
    # The wall clock leaps a day forward and back after every start.
    "clock leaps": (replace(_BUSY, kills=2, stops=2), ("--expiry-grace", "0"), "leaping_clock"),
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
