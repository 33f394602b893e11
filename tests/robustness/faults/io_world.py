"""A server under traffic whose disk fails now and then, works again, and is killed in between."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

from robustness.faults.crashes import SERVER
from robustness.prove.checkers import Violation, check
from robustness.prove.clients import Caller
from robustness.prove.histories import Options, World
from robustness.prove.history import parse
from support.process import ServerProcess

_RECOVERY_SECONDS = 20.0
_SIZES = (0, 1, 1000, 70_000, 300_000, 1_500_000)
# What may be said while the disk fails; that nothing was changed then is for the checkers to find out.
_HONEST = ("DATABASE_FAILURE", "STORAGE_FAILURE", "STORAGE_FULL")


@dataclass(frozen=True)
class Phase:
    """A while in which the disk fails."""

    name: str
    begin: Callable[[ServerProcess], None]
    end: Callable[[ServerProcess], None]
    seconds: float = 0.7
    # Killed while the disk fails: what was answered must be there all the same.
    killed: bool = False


class FailingDiskWorld(World):
    """Traffic on one data directory through phases of a failing disk."""

    def __init__(self, data_dir: Path, phases: Sequence[Phase], environment: Mapping[str, str], seed: str) -> None:
        self._phases = phases
        self.slowest_recovery = 0.0
        start = lambda: ServerProcess(data_dir, SERVER, environment)  # noqa: E731 - said once
        super().__init__(start, Options(seed, seconds=1.0, sizes=_SIZES, pause=0.02))

    async def disturb(self) -> None:
        """Go through the phases; after each the service must work again without help."""
        choose = random.Random(f"{self.options.seed} nemesis")
        for phase in self._phases:
            await asyncio.sleep(0.3 + choose.random() * 0.3)
            self.recorder.line("nemesis", "disk fails", how=phase.name)
            await asyncio.to_thread(phase.begin, self.server)
            await asyncio.sleep(phase.seconds)
            if phase.killed:
                await asyncio.to_thread(self.server.kill)
            await asyncio.to_thread(phase.end, self.server)
            self.recorder.line("nemesis", "disk works")
            if phase.killed:
                self.server = await asyncio.to_thread(self._start)
            await self._works_again()
        # What could not be deleted while the disk failed is deleted after a start at the latest.
        await asyncio.to_thread(self.server.kill)
        self.server = await asyncio.to_thread(self._start)

    async def _works_again(self) -> None:
        """Ready, and a new file can be cancelled."""
        started = time.monotonic()
        connections = self.connect()
        caller = Caller("survivor", self.recorder, connections.doors[0])
        async with asyncio.timeout(_RECOVERY_SECONDS):
            while not await ready(self.server):  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.05)
            made = await caller.initiate(1000)
            assert made is not None, "ready, but it takes no upload"
            assert await caller.cancel(made[0]) is not None, "ready, but it cancels nothing"
        self.slowest_recovery = max(self.slowest_recovery, time.monotonic() - started)

    @property
    def phases(self) -> int:
        """How many there are."""
        return len(self._phases)

    def errors(self) -> Counter[str]:
        """What callers were told."""
        return Counter(line["answer"]["reason"] for line in self.recorder.lines if line.get("answer", {}).get("reason"))


async def endure(world: FailingDiskWorld, folder: Path) -> list[Violation]:
    """Run it; returns which promises were broken."""
    try:
        await world.run()
    finally:
        world.recorder.save(folder / "history.jsonl")
        world.server.kill()
    found = await asyncio.to_thread(lambda: check(parse(world.recorder.lines)))
    return [each for each in found if not _is_honest_refusal(each)]


def _is_honest_refusal(found: Violation) -> bool:
    """A call, or its repetition, that failed because the disk did, and said so."""
    reason_text = found.text.partition(" after #")[0]
    excused = {"reads": "failed by our own fault", "requests": "an answer that was given is refused"}
    return reason_text.startswith(excused.get(found.checker, "never")) and any(word in reason_text for word in _HONEST)


async def ready(server: ServerProcess) -> bool:
    """Whether it says that it can take work."""
    async with httpx.AsyncClient(base_url=server.url, timeout=20) as client:
        return (await client.get("/readyz")).status_code == 200
