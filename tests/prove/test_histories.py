"""Histories of many clients on few ids keep every promise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from prove.checkers import check
from prove.histories import Options, World
from prove.history import History, parse
from support.process import ServerProcess

OPTIONS = ("--websocket-grace", "0.3", "--drain-grace", "0")


async def run_history(start: Callable[[], ServerProcess], options: Options, folder: Path) -> History:
    """Record a history and check it; a bad one is left in ``folder``."""
    world = World(start, options)
    try:
        await world.run()
    finally:
        world.recorder.save(folder / "history.jsonl")
        world.server.kill()
    history = parse(world.recorder.lines)
    violations = check(history)
    assert not violations, "\n".join(map(str, violations[:5])) + f"\n{len(violations)} violations; {folder}"
    return history


@pytest.mark.timeout(90)
@pytest.mark.parametrize("seed", ["1", "2", "3", "4"])
async def test_a_history_keeps_every_promise(tmp_path: Path, seed: str) -> None:
    history = await run_history(lambda: ServerProcess(tmp_path / "data", OPTIONS), Options(seed), tmp_path)
    assert sum(op.outcome == "ok" for op in history.ops) > 50


@pytest.mark.timeout(90)
@pytest.mark.parametrize("seed", ["k1", "k2"])
async def test_a_history_with_kills_keeps_every_promise(tmp_path: Path, seed: str) -> None:
    options = Options(seed, seconds=5, kills=2)
    await run_history(lambda: ServerProcess(tmp_path / "data", OPTIONS), options, tmp_path)
