"""A server under traffic that is killed again and again on the same data, and a history of all of it for the checkers.

Callers, senders and watchers are those of ``robustness.prove.histories``: they go on after each crash with the tokens,
offsets and request ids they have from before it.
"""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from robustness.faults.points import AT_START, AT_STOP
from robustness.prove.checkers import Violation, check
from robustness.prove.clients import Caller
from robustness.prove.histories import REST_SECONDS, Options, World
from robustness.prove.history import parse
from support.process import ServerProcess

LAUNCHER = str(Path(__file__).with_name("launcher.py"))
SERVER = ("--websocket-grace", "0.3", "--drain-grace", "0")
# Of one file: small, and large enough to become durable in several steps.
SIZES = (0, 1, 1000, 70_000, 300_000, 1_500_000)
# How many of the calls made before a crash are repeated after it.
_REPEATED = 8
# Seconds in which a server has to come by its point; most do within one, few never do.
_PATIENCE = 4.0
# A point nobody comes by so often.
_NOWHERE = f"fail.before:{1 << 30}"


@dataclass(frozen=True)
class Crash:
    """One way to die: at a named ``point`` (``NAME.when:nth``), in the nth call to the disk, or at any moment.

    ``environment`` is the server's; ``patience``: after so many seconds it is killed wherever it is.
    """

    point: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    patience: float = _PATIENCE

    @classmethod
    def at_any_moment(cls, seconds: float) -> Crash:
        """Killed after this time."""
        return cls(_NOWHERE, patience=seconds)

    @property
    def name(self) -> str:
        """What is counted: the point without its number."""
        if self.point == _NOWHERE:
            return "random moment"
        return self.point.partition(":")[0] or ("disk call" if self.environment else "random moment")

    @property
    def at_start(self) -> bool:
        """Whether it strikes while the server starts."""
        return self.name.rpartition(".")[0] in AT_START

    @property
    def at_stop(self) -> bool:
        """Whether the server has to be asked to stop."""
        return self.name.rpartition(".")[0] in AT_STOP


def launch(data_dir: Path, crash: Crash, bugs: str = "") -> ServerProcess:
    """Start a server that is to die so; ``bugs`` are mutants, joined by ``+``."""

    class Doomed(ServerProcess):
        program = (LAUNCHER, crash.point, bugs) if crash.point or bugs else ("-m", "upload_server")

    return Doomed(data_dir, SERVER, crash.environment)


class CrashWorld(World):
    """Traffic on one data directory through as many servers as there are crashes, and one more that lives."""

    def __init__(self, data_dir: Path, crashes: Sequence[Crash], seed: str, bugs: str = "") -> None:
        self._data_dir = data_dir
        self._bugs = bugs
        self._left = list(crashes)
        self._crash = Crash()
        # What was survived, by name; and the longest time from a crash to a server that serves.
        self.survived: Counter[str] = Counter()
        self.slowest_start = 0.0
        super().__init__(self._launch, Options(seed, seconds=1.0, sizes=SIZES, pause=0.03))

    def _launch(self) -> ServerProcess:
        """Start the next server. One that dies while it starts is a crash like others."""
        while True:
            self._crash = self._left.pop(0) if self._left else Crash()
            started = time.monotonic()
            try:
                server = launch(self._data_dir, self._crash, self._bugs)
            except AssertionError as error:
                if f"ended with {-signal.SIGKILL}" not in str(error):
                    raise
                self._count(self._crash.name)
                continue
            self.slowest_start = max(self.slowest_start, time.monotonic() - started)
            return server

    def _count(self, name: str) -> None:
        self.survived[name] += 1
        self.recorder.line("nemesis", "crash", at=name)

    async def disturb(self) -> None:
        """Let each server die in its way; afterwards ask again what was asked before."""
        choose = random.Random(f"{self.options.seed} nemesis")
        # All are served, then the last is left alone.
        while self._left or self._crash != Crash():
            await self._die(choose)
            self.server = await asyncio.to_thread(self._launch)
            await self._repeat()

    async def _die(self, choose: random.Random) -> None:
        crash, server = self._crash, self.server
        moment = 0.1 + choose.random()
        if crash.at_stop:
            await asyncio.sleep(moment)
            server.popen.send_signal(signal.SIGTERM)
        planned = bool(crash.point or crash.environment)
        died = await _dies_within(server, crash.patience if planned else moment)
        await asyncio.to_thread(server.kill)
        if not died or (crash.at_stop and server.popen.returncode == 0):
            self._count("random moment" if not died else "orderly stop")
            return
        assert server.popen.returncode == -signal.SIGKILL, f"it ended by itself: {server.log[-5:]}"
        self._count(crash.name)

    async def _repeat(self) -> None:
        """Ask again, by request id, what was asked shortly before the crash, answered or not."""
        connections = self.connect()
        asked = [line for line in self.recorder.lines[-3000:] if line["type"] == "invoke"]
        named = [line for line in asked if line["args"].get("request_id")][-_REPEATED:]
        for i, line in enumerate(named):
            caller = Caller("repeater", self.recorder, connections.doors[i % 2])
            args = line["args"]
            if line["op"] == "cancel":
                await caller.cancel(args["file_id"], args["reason"], args["request_id"])
            elif line["op"] == "cancel_batch":
                await caller.cancel_batch(args["batch_id"], args["reason"], args["request_id"])
            elif line["op"] == "initiate":
                await caller.initiate(args["size"], args["request_id"])
            elif line["op"] == "initiate_batch":
                await caller.initiate_batch(args["sizes"], args["request_id"])


async def _dies_within(server: ServerProcess, seconds: float) -> bool:
    """Whether the process ends by itself within this time."""
    try:
        await asyncio.to_thread(server.popen.wait, seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


async def survive(
    data_dir: Path, crashes: Sequence[Crash], seed: str, bugs: str = "", rest: float = REST_SECONDS
) -> tuple[CrashWorld, list[Violation]]:
    """Go through these crashes; returns the world and which promises were broken."""
    world = CrashWorld(data_dir, crashes, seed, bugs)
    world.rest_seconds = rest
    try:
        await world.run()
    finally:
        world.recorder.save(data_dir.parent / "history.jsonl")
        world.server.kill()
    return world, await asyncio.to_thread(lambda: check(parse(world.recorder.lines)))


def report(world: CrashWorld) -> str:
    """In one line, what was survived."""
    ops = Counter(line["op"] for line in world.recorder.lines if line["type"] == "invoke")
    crashes = ", ".join(f"{name} {count}" for name, count in sorted(world.survived.items()))
    return (
        f"{world.survived.total()} crashes survived ({crashes}); {ops.total()} calls; "
        f"slowest start {world.slowest_start:.1f} s"
    )
