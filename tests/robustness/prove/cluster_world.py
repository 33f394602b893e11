"""Random traffic on several servers of one database and one folder, while the machine does its worst to each.

Clients go to another server with every call, every stream and every watch that they resume, and send one request id to
two servers at once. What strikes whom, the seed decides.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import httpx

from robustness.prove import newer
from robustness.prove.clients import Caller, Connections
from robustness.prove.histories import Options, World
from robustness.prove.history import FAILS_OVER, History, parse
from robustness.prove.servers import cluster_starter
from robustness.prove.tables import Seen, read_shared
from support.cluster import Cluster, Node
from support.object_store import Bucket, ObjectStore, environment
from support.process import LogLine, ServerProcess

SERVER = ("--websocket-grace", "0.3", "--drain-grace", "0")
_SIZES = (0, 1, 1000, 70_000, 1_500_000)
CALM = Options("", seconds=6, callers=4, senders=6, watchers=5, sizes=_SIZES, pause=0.02)
# The service works again so soon after whatever struck it, without help.
_RECOVERY_SECONDS = 30.0
# A caller at a server that is known to be struck gives up after so long.
_SHORT_PATIENCE = 2.0
_LOOKS_SECONDS = 100.0
# Whose clock is wrong, and how.
_CLOCKS = {"node1": "clock_ahead", "node2": "clock_behind"}


@dataclass(frozen=True)
class Deed:
    """What strikes a server, or with ``all`` the database of all of them, for how long."""

    begin: Callable[[Cluster, Node, random.Random], None]
    end: Callable[[Cluster, Node], None] = lambda _, node: node.heal()
    seconds: float = 0.3
    all: bool = False


def _end_sessions(cluster: Cluster, _: Node, choose: random.Random) -> None:
    sessions = cluster.sessions()
    cluster.postgres.terminate_backends(choose.sample(sessions, len(sessions) // 2))


def _stop(_: Cluster, node: Node, __: random.Random) -> None:
    code = node.terminate()
    assert code == 0, f"a server that was asked to stop ended with {code}: {node.server.log[-5:]}"


DEEDS: Mapping[str, Deed] = {
    "kill": Deed(lambda _, node, __: node.kill(), lambda _, node: node.start()),
    "stop": Deed(_stop, lambda _, node: node.start()),
    "freeze": Deed(lambda _, node, __: node.freeze(), lambda _, node: node.thaw(), 3.0),
    # A rolling upgrade, and back: one server by the next release beside others by this one.
    "upgrade": Deed(lambda cluster, node, _: newer.upgrade(cluster, node), lambda _, node: node.start()),
    "set back": Deed(lambda cluster, node, _: newer.set_back(cluster, node), lambda _, node: node.start()),
    # Past the lease.
    "long freeze": Deed(lambda _, node, __: node.freeze(), lambda _, node: node.thaw(), 15.0),
    "database restarts": Deed(lambda cluster, _, __: cluster.restart_database(), all=True),
    FAILS_OVER: Deed(lambda cluster, _, __: cluster.fail_over(), all=True),
    "sessions end": Deed(_end_sessions, all=True),
    "cut off": Deed(lambda _, node, __: node.cut_off(), seconds=3.0),
    "not heard": Deed(lambda _, node, __: node.cut_off(down=False), seconds=8.0),
    "hears nothing": Deed(lambda _, node, __: node.cut_off(up=False), seconds=8.0),
    "long cut": Deed(lambda _, node, __: node.cut_off(), seconds=15.0),
}


def _half_answers(cluster: Cluster, _: Node, choose: random.Random) -> None:
    cluster.store_line.down.cut_after = choose.randrange(400)


OBJECT_DEEDS: Mapping[str, Deed] = {
    "store is killed": Deed(
        lambda cluster, _, __: _store(cluster).kill(), lambda cluster, _: _store(cluster).start(), 1.0, all=True
    ),
    "store pauses": Deed(
        lambda cluster, _, __: _store(cluster).pause(), lambda cluster, _: _store(cluster).go_on(), 3.0, all=True
    ),
    "store is away": Deed(
        lambda cluster, _, __: cluster.lose_store(), lambda cluster, _: cluster.heal_store(), 3.0, all=True
    ),
    "store is busy": Deed(
        lambda cluster, _, __: cluster.have_store_refuse(), lambda cluster, _: cluster.heal_store(), 2.0, all=True
    ),
    "store answers by half": Deed(_half_answers, lambda cluster, _: cluster.heal_store(), 2.0, all=True),
}


def _store(cluster: Cluster) -> ObjectStore:
    assert cluster.bucket is not None
    return cluster.bucket.store


class ClusterWorld(World):
    """Servers and everybody who uses them."""

    def __init__(self, cluster: Cluster, deeds: Sequence[str], options: Options) -> None:
        self.cluster = cluster
        self._deeds = deeds
        self._struck: set[int] = set()
        # The longest time that it took the service to work again, by what had struck.
        self.slowest: dict[str, float] = {}
        super().__init__(lambda: cluster.nodes[0].server, options)
        self.recorder.line("world", "clock", micros=time.time_ns() // 1000)
        self._others = self.reach(random.Random(f"{options.seed} others"))

    # Clients -------------------------------------------------------------------------------------------------------

    def _choose_server(self, choose: random.Random) -> tuple[ServerProcess, str]:
        """Return any; one that is struck seldom, as behind a balancer that looks after their health."""
        nodes = self.cluster.nodes
        well = [node for node in nodes if node.number not in self._struck]
        node = choose.choice(nodes if not well or choose.random() < 0.1 else well)
        return node.server, f"@{node.number}"

    def _patience(self, choose: random.Random, connections: Connections) -> float:
        patience = super()._patience(choose, connections)
        return min(patience, _SHORT_PATIENCE) if int(connections.at[1:]) in self._struck else patience

    async def _recover(self, lost: ServerProcess) -> None:  # noqa: ARG002 - the next call is another server's
        await asyncio.sleep(0.05)

    async def _call(self, choose: random.Random, caller: Caller) -> None:
        if self.pool.files and choose.random() < 0.1:
            await self._ask_two(choose, caller)
        else:
            await super()._call(choose, caller)

    async def _ask_two(self, choose: random.Random, caller: Caller) -> None:
        """Send one request to two servers at once."""
        connections = self._others()
        name = f"{caller.name.partition('@')[0]} too{connections.at}"
        both = (caller, Caller(name, self.recorder, connections.doors[0], self._patience(choose, connections)))
        request_id = f"two{choose.getrandbits(64):x}"
        what = choose.choice(("new", "cancel", "cancel_batch"))
        if what == "new":
            size = choose.choice(self.options.sizes)
            for made in await asyncio.gather(*(each.initiate(size, request_id) for each in both)):
                for file_id in made or ():
                    self.pool.add(file_id, size)
        elif what == "cancel" or not self.pool.batches:
            target = choose.choice(list(self.pool.files))
            await asyncio.gather(*(each.cancel(target, "", request_id) for each in both))
        else:
            target = choose.choice(self.pool.batches)
            await asyncio.gather(*(each.cancel_batch(target, "", request_id) for each in both))

    # What strikes --------------------------------------------------------------------------------------------------

    async def disturb(self) -> None:
        """Strike, heal, and see that all works again; one after the other."""
        choose = random.Random(f"{self.options.seed} nemesis")
        for name in self._deeds:
            await asyncio.sleep(0.5 + choose.random())
            deed, node = {**DEEDS, **OBJECT_DEEDS}[name], choose.choice(self.cluster.nodes)
            async with self._striking(name, deed, node):
                await asyncio.to_thread(deed.begin, self.cluster, node, choose)
                await asyncio.sleep(deed.seconds)
                await asyncio.to_thread(deed.end, self.cluster, node)
                took = await self._works_again()
            self.slowest[name] = max(self.slowest.get(name, 0.0), took)

    @contextlib.asynccontextmanager
    async def _striking(self, name: str, deed: Deed, node: Node) -> AsyncIterator[None]:
        since = time.monotonic_ns()
        self._struck = {each.number for each in self.cluster.nodes if deed.all or each is node}
        try:
            yield
        finally:
            self._struck = set()
            self.recorder.line("nemesis", "fault", what=name, at="" if deed.all else f"@{node.number}", since=since)

    async def _works_again(self) -> float:
        """Wait until every server is ready and a new file can be cancelled there; returns the seconds that took."""
        began = time.monotonic()
        await asyncio.gather(*map(self._node_works, self.cluster.nodes))
        return time.monotonic() - began

    async def _node_works(self, node: Node) -> None:
        at = f"@{node.number}"
        caller = Caller(f"survivor{at}", self.recorder, self._connect(node.server, at).doors[0])
        try:
            async with asyncio.timeout(_RECOVERY_SECONDS):
                while not await _ready(node.server):  # noqa: ASYNC110 - another process
                    await asyncio.sleep(0.05)
                while (made := await caller.initiate(1000)) is None:  # noqa: ASYNC110 - another process
                    await asyncio.sleep(0.05)
                while await caller.cancel(made[0]) is None:  # noqa: ASYNC110 - another process
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"server {node.number} does not work again: {node.server.log[-5:]}") from None

    # What is left --------------------------------------------------------------------------------------------------

    def _look(self) -> Seen:
        tables, stood_still = read_shared(self.cluster.url, self.cluster.bucket or self.cluster.storage)
        tables["alarms"] += [text for node in self.cluster.nodes for text in errors_of(node)]
        return tables, stood_still


def errors_of(node: Node) -> list[str]:
    """What a server has logged as an error, in all its lives, but for what is explained."""
    return [
        f"server {node.number}: {line}"
        for process in node.processes
        for line in process.log
        if line.get("level") in {"error", "critical"} and not _explained(line)
    ]


def _explained(line: LogLine) -> bool:
    """Whether it says no more than that the database, or the object store, was away."""
    if line.get("event") == "node.cut_off" or "DatabaseFailure" in str(line.get("exception", "")):
        return True
    return line.get("reason") == "unavailable" or "Unavailable(" in str(line.get("exception", ""))


async def _ready(server: ServerProcess) -> bool:
    """Whether it says that it can take work."""
    async with httpx.AsyncClient(base_url=server.url, timeout=5) as client:
        with contextlib.suppress(httpx.TransportError):
            return (await client.get("/readyz")).status_code == 200
    return False


async def record(
    folder: Path,
    deeds: Sequence[str],
    options: Options,
    server: Sequence[str] = (),
    mutants: str = "",
    bucket: Bucket | None = None,
) -> tuple[History, ClusterWorld]:
    """Record the history of a cluster of three; its lines are left in ``folder``.

    The clocks of two of its servers are ten seconds apart.
    """

    def start(data_dir: Path, words: Sequence[str], place: Mapping[str, str] = MappingProxyType({})) -> ServerProcess:
        starter = cluster_starter("+".join(filter(None, (mutants, _CLOCKS.get(data_dir.name)))))
        return starter(data_dir, words, {**(environment() if bucket else {}), **place})

    making = functools.partial(Cluster, folder / "cluster", options=(*SERVER, *server), cuttable=True, start=start)
    cluster = await asyncio.to_thread(functools.partial(making, bucket=bucket))
    try:
        await asyncio.to_thread(cluster.start)
        world = ClusterWorld(cluster, deeds, options)
        if bucket is not None:
            # Every deletion is repeated after half a minute, or tried again.
            world.rest_seconds = max(world.rest_seconds, _LOOKS_SECONDS)
        try:
            await world.run()
        finally:
            world.recorder.save(folder / "history.jsonl")
    finally:
        await asyncio.to_thread(cluster.close)
    return parse(world.recorder.lines), world
