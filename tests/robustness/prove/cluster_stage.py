"""Two servers on one store, and a history of what is done at each: scenarios, bugs, and who sees them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from robustness.prove.catches import Catch
from robustness.prove.checkers import check
from robustness.prove.clients import Caller, Connections
from robustness.prove.cluster_world import SERVER, errors_of
from robustness.prove.history import FAILS_OVER, History
from robustness.prove.servers import cluster_starter
from robustness.prove.stage import SHORT, Patience, Stage
from robustness.prove.tables import Seen, read_shared
from robustness.prove.watchers import Request, Watcher
from support.cluster import Cluster

KIB = 1024
_ATTEMPTS = 3
# A lease, and the rounds of whoever expires.
_EXPIRY_SECONDS = 14.0


class ClusterStage(Stage):
    """A stage of two servers; who acts is at one of them, and may ``go`` to the other."""

    def __init__(self, cluster: Cluster, patience: Patience) -> None:
        self.cluster = cluster
        super().__init__(lambda: cluster.nodes[0].server, patience)

    async def _begin(self) -> None:
        await asyncio.to_thread(self.cluster.start)
        self.recorder.line("stage", "clock", micros=time.time_ns() // 1000)
        self._connect_all()
        self.go(0)

    def _connect_all(self) -> None:
        self._all = [Connections(node.server, f"@{node.number}") for node in self.cluster.nodes]

    def go(self, number: int) -> None:
        """Act at this server from now on."""
        self.server, self.connections = self.cluster.nodes[number].server, self._all[number]
        self.caller = self.at(number)

    def at(self, number: int) -> Caller:
        """Return a caller at this server."""
        connections = self._all[number]
        return Caller(f"caller{connections.at}", self.recorder, connections.doors[0])

    async def kill_all(self) -> None:
        """Kill the servers, one after the other, and start each again."""
        await self._end()
        for node in self.cluster.nodes:
            await asyncio.to_thread(node.kill)
            await asyncio.to_thread(node.start)
        self._connect_all()
        self.go(0)

    def _connect_again(self) -> None:
        # At the other server: every token must be good there.
        self._connect_all()
        self.go(1)

    async def _end(self) -> None:
        await super()._end()
        for connections in self._all:
            await connections.close()

    async def hear_news(self, watcher: Watcher, file_id: str, status: str) -> None:
        """The watcher is to hear of this change, now."""
        op_id = self.recorder.invoke(watcher.name, "hear_news", file_id=file_id)

        def is_it(message: dict[str, object]) -> bool:
            file = message.get("file")
            return isinstance(file, dict) and (file["file_id"], file["status"]) == (file_id, f"UPLOAD_STATUS_{status}")

        heard = await watcher.wait_for(is_it, self.patience.stop)
        self.recorder.answered(watcher.name, op_id, "ok" if heard else "unknown")

    async def hear_expiry(self, file_id: str) -> None:
        """The file is to expire, however busy the machine is."""
        op_id = self.recorder.invoke(self.caller.name, "hear_expiry", file_id=file_id)
        expired = False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.patience.stop + _EXPIRY_SECONDS):
                while not expired:
                    await asyncio.sleep(0.2)
                    found = await self.caller.get(file_id)
                    expired = found is not None and found["status"] == "failed"
        self.recorder.answered(self.caller.name, op_id, "ok" if expired else "unknown")

    async def fail_over(self) -> None:
        """Have a standby take the database over, and start all servers anew; the watchers resume."""
        since = time.monotonic_ns()
        await self._end()
        await asyncio.to_thread(self.cluster.fail_over)
        self.recorder.line("stage", "fault", what=FAILS_OVER, at="", since=since)
        self._connect_all()
        self.go(0)

    def _look(self) -> Seen:
        tables, stood_still = read_shared(self.cluster.url, self.cluster.storage)
        tables["alarms"] += [text for node in self.cluster.nodes for text in errors_of(node)]
        return tables, stood_still


@dataclass(frozen=True)
class Entry:
    """A scenario with its servers' options."""

    play: Callable[[ClusterStage], Awaitable[None]]
    options: tuple[str, ...] = ()


async def cancel_elsewhere(stage: ClusterStage) -> None:
    """A file is cancelled at one server under a silent sender at the other, both ways."""
    for here, there in ((0, 1), (1, 0)):
        stage.go(here)
        file_id = await stage.file(100 * KIB)
        stream = await stage.open(file_id, 100 * KIB)
        assert stream is not None
        await stream.send(50 * KIB)
        await stream.hear_durable(50 * KIB)
        await stage.at(there).cancel(file_id, "enough")
        await stream.hear_stop()
        await stage.at(here).get(file_id)


async def take_over_elsewhere(stage: ClusterStage) -> None:
    """A silent sender's file is taken over at the other server."""
    file_id = await stage.file(100 * KIB)
    stream = await stage.open(file_id, 100 * KIB)
    assert stream is not None
    await stream.send(50 * KIB)
    await stream.hear_durable(50 * KIB)
    stage.go(1)
    again = await stage.open(file_id, 100 * KIB, 50 * KIB)
    assert again is not None
    await stream.hear_end()
    await again.send(100 * KIB)
    await again.commit()


async def left_and_cancelled_elsewhere(stage: ClusterStage) -> None:
    """A sender leaves a file at one server, which the other one cancels, both ways."""
    for here, there in ((0, 1), (1, 0)):
        stage.go(here)
        file_id = await stage.file(100 * KIB)
        stream = await stage.open(file_id, 100 * KIB)
        assert stream is not None
        await stream.send(50 * KIB)
        await stream.leave()
        await stage.at(there).cancel(file_id, "enough")


async def silent_senders(stage: ClusterStage) -> None:
    """At each server a sender is silent for longer than an upload may be left alone."""
    stage.recorder.line("stage", "ttl", seconds=1.0)
    for number in (0, 1):
        stage.go(number)
        stream = await stage.open(await stage.file(100), 100)
        assert stream is not None
        await stream.send(50)
        await stream.hear_durable(50)
    left = await stage.file(100)
    async with asyncio.timeout(30):
        while (found := await stage.caller.get(left)) is None or found["status"] != "failed":  # noqa: ASYNC110
            await asyncio.sleep(0.2)


async def left_senders(stage: ClusterStage) -> None:
    """At each server a sender leaves a file."""
    stage.recorder.line("stage", "ttl", seconds=1.0)
    left = [await stage.file(100) for _ in (0, 1)]
    for number, file_id in enumerate(left):
        stage.go(number)
        stream = await stage.open(file_id, 100)
        assert stream is not None
        await stream.send(50)
        await stream.leave()
    for file_id in left:
        await stage.hear_expiry(file_id)


async def senders_of_dead_servers(stage: ClusterStage) -> None:
    """Each server is killed under a sender, and started again."""
    stage.recorder.line("stage", "ttl", seconds=1.0)
    left = [await stage.file(100) for _ in (0, 1)]
    for number, file_id in enumerate(left):
        stage.go(number)
        stream = await stage.open(file_id, 100)
        assert stream is not None
        await stream.send(50)
        await stream.hear_durable(50)
    await stage.kill_all()
    for file_id in left:
        await stage.hear_expiry(file_id)


async def failed_over(stage: ClusterStage) -> None:
    """The database fails over to a standby beside a watcher."""
    watcher = await stage.watch(Request(everything=True))
    gone = await stage.file(10)
    await stage.caller.cancel(gone)
    await stage.hear_news(watcher, gone, "CANCELLED")
    await stage.fail_over()
    await stage.caller.get(gone)
    await stage.caller.cancel(await stage.file(10))


async def calls_at_both(stage: ClusterStage) -> None:
    """Both servers take many calls at the same time."""

    async def work(number: int) -> None:
        caller = stage.at(number)
        for _ in range(25):
            if made := await caller.initiate(10):
                await caller.cancel(made[0])
                await caller.get(made[0])

    await asyncio.gather(*(work(number) for number in (0, 1) * 4))


async def one_batch_at_both(stage: ClusterStage) -> None:
    """Both servers end files of the same batches at the same time."""
    for _ in range(4):
        made = await stage.caller.initiate_batch([1] * 16)
        assert made
        await asyncio.gather(*(stage.at(number % 2).cancel(one) for number, one in enumerate(made[1])))


async def all_at_once(stage: ClusterStage) -> None:
    """Both servers are watched, and take many calls at the same time."""
    for number in (0, 1):
        stage.go(number)
        await stage.watch(Request(everything=True))

    await calls_at_both(stage)
    await stage.wait_all_watchers()


async def watch_elsewhere(stage: ClusterStage) -> None:
    """A watcher at one server is to hear what is done at the other."""
    watcher = await stage.watch(Request(everything=True))
    stage.go(1)
    for _ in range(3):
        file_id = await stage.file(10)
        await stage.caller.cancel(file_id)
        await stage.hear_news(watcher, file_id, "CANCELLED")


async def same_request_elsewhere(stage: ClusterStage) -> None:
    """One request goes to one server and then to the other."""
    here, there = stage.at(0), stage.at(1)
    file_id = await stage.file(1)
    for caller in (here, there):
        await caller.cancel(file_id, "a", "r")
        await caller.initiate(3, "n")
        await caller.initiate_batch([1, 2], "b")


async def sealed_in_turn(stage: ClusterStage) -> None:
    """Both servers make changes, each after what the other has made is sealed."""
    for number in (0, 1) * 3:
        stage.go(number)
        await stage.caller.cancel(await stage.file(10))
        await asyncio.sleep(0.4)


_EXPIRY = ("--upload-ttl", "1s", "--expiry-grace", "0")
CLUSTER_SCENARIOS = {
    "cancel_elsewhere": Entry(cancel_elsewhere),
    "take_over_elsewhere": Entry(take_over_elsewhere),
    "left_and_cancelled_elsewhere": Entry(left_and_cancelled_elsewhere),
    "silent_senders": Entry(silent_senders, _EXPIRY),
    "left_senders": Entry(left_senders, _EXPIRY),
    "senders_of_dead_servers": Entry(senders_of_dead_servers, _EXPIRY),
    "failed_over": Entry(failed_over),
    "calls_at_both": Entry(calls_at_both),
    "one_batch_at_both": Entry(one_batch_at_both),
    "all_at_once": Entry(all_at_once),
    "watch_elsewhere": Entry(watch_elsewhere),
    "same_request_elsewhere": Entry(same_request_elsewhere),
    "sealed_in_turn": Entry(sealed_in_turn),
}
CLUSTER_CATCHES = {
    "stops_not_left": Catch("cancel_elsewhere", "finality"),
    "take_over_not_told": Catch("take_over_elsewhere", "finality"),
    "holder_not_noted": Catch("cancel_elsewhere", "finality"),
    "bell_without_poll": Catch("cancel_elsewhere", "finality"),
    "changes_of_others_unheard": Catch("watch_elsewhere", "finality"),
    "holder_not_cleared": Catch("left_senders", "finality"),
    "dead_nodes_hold": Catch("senders_of_dead_servers", "finality"),
    "node_id_used_again": Catch("senders_of_dead_servers", "finality"),
    "timeline_not_in_tokens": Catch("failed_over", "watch.bookmarkable"),
    "expiry_by_own_streams": Catch("silent_senders", "nodes.living"),
    "order_lock_absent": Catch("calls_at_both", "reads"),
    "numbers_of_a_sequence": Catch("all_at_once", "watch.bookmarkable"),
    "lease_by_the_nodes_clock": Catch("silent_senders", "nodes.living"),
    "rows_not_locked": Catch("one_batch_at_both", "batches"),
    "fate_not_asked": Catch("calls_at_both", "linear", on="lost_answers_of_commits"),
    "tokens_of_a_node": Catch("watch_elsewhere", "watch.bookmarkable"),
    "answers_of_a_node": Catch("same_request_elsewhere", "requests"),
    "sealers_suspect_each_other": Catch("sealed_in_turn", "nodes.alarms"),
}
# Every scenario must pass without a bug, and where it is no bug that something fails.
CLUSTER_SOUND = [
    *((name, "") for name in CLUSTER_SCENARIOS),
    ("calls_at_both", "lost_answers_of_commits"),
    ("cancel_elsewhere", "bell_cut_off"),
]


async def play_cluster(scenario: str, bug: str, folder: Path, patience: Patience) -> History:
    """Play a scenario on two servers with a bug, or with none."""
    entry = CLUSTER_SCENARIOS[scenario]
    cluster = await asyncio.to_thread(
        lambda: Cluster(folder / "cluster", 2, (*SERVER, *entry.options), start=cluster_starter(bug))
    )
    try:
        if bug.endswith("numbers_of_a_sequence"):
            cluster.postgres.command("CREATE SEQUENCE prove_numbers", cluster.database, cluster.user)
        async with ClusterStage(cluster, patience) as stage:
            try:
                await entry.play(stage)
                return await stage.history()
            finally:
                stage.recorder.save(folder / "history.jsonl")
    finally:
        await asyncio.to_thread(cluster.close)


async def escapes_cluster(bug: str, folder: Path) -> str:
    """Play a bug's scenario; returns the other complaints if its checker does not catch it, empty when it does."""
    catch = CLUSTER_CATCHES[bug]
    for attempt in range(_ATTEMPTS):
        history = await play_cluster(
            catch.scenario, "+".join(filter(None, (catch.on, bug))), folder / str(attempt), SHORT
        )
        if check(history, catch.checker):
            return ""
    return f"{catch.checker} says nothing of {bug}; others: {[str(found)[:200] for found in check(history)]}"
