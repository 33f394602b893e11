"""Random traffic of many clients on few ids against a real server process, recorded as a history.

The seed decides what is tried, not in which order the server meets it: a history is judged by checkers, never compared.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import grpc

from robustness.prove.clients import Caller, Connections
from robustness.prove.history import Recorder
from robustness.prove.senders import ENDINGS, Plan, Sender
from robustness.prove.tables import Seen, all_heard, read_tables
from robustness.prove.watchers import Request, Watcher, number_of
from support.process import ServerProcess

# Different requests meet under one of these.
_REQUEST_IDS = 6
# How long deletions that are owed may take on a busy machine.
REST_SECONDS = 15.0


@dataclass(frozen=True)
class Options:
    """How much of what."""

    seed: str
    seconds: float = 3.0
    callers: int = 4
    senders: int = 4
    watchers: int = 5
    sizes: tuple[int, ...] = (0, 1, 1000, 70_000, 300_000)
    # How often the server is killed, is asked to stop (and started anew), and is frozen for a moment.
    kills: int = 0
    stops: int = 0
    freezes: int = 0
    # How many files are worked on at a time: the fewer, the more collide.
    live: int = 10
    # Files of a batch, at most.
    batch: int = 4
    # How many of the calls are given up by their callers within milliseconds.
    impatient: float = 0.05
    pause: float = 0.01
    # The server's `--upload-ttl`, in seconds.
    ttl: float = 86_400.0


@dataclass
class Pool:
    """The few ids that everybody works on; new ones take the place of old ones."""

    live: int
    files: dict[str, int] = field(default_factory=dict)
    batches: list[str] = field(default_factory=list)

    def add(self, file_id: str, size: int) -> None:
        self.files[file_id] = size
        while len(self.files) > self.live:
            del self.files[next(iter(self.files))]

    def add_batch(self, batch_id: str) -> None:
        self.batches.append(batch_id)
        del self.batches[:-2]


class World:
    """One server and everybody who uses it."""

    def __init__(self, start: Callable[[], ServerProcess], options: Options) -> None:
        self.options = options
        self.recorder = Recorder()
        self.recorder.line("world", "ttl", seconds=options.ttl)
        self.pool = Pool(options.live)
        self.rest_seconds = REST_SECONDS
        self.server = start()
        self._start = start
        self._connections: list[Connections] = []
        self._streams = 0
        self.watchers: list[Watcher] = []

    def connect(self) -> Connections:
        """New connections to the server that runs now."""
        return self._connect(self.server)

    def _connect(self, server: ServerProcess, at: str = "") -> Connections:
        made = Connections(server, at)
        self._connections.append(made)
        return made

    def reach(self, choose: random.Random) -> Callable[[], Connections]:
        """One client's ways in, each time it calls: connections to the server that runs now, kept while it does."""
        known: dict[int, Connections] = {}

        def current() -> Connections:
            server, at = self._choose_server(choose)
            if server.pid not in known:
                known[server.pid] = self._connect(server, at)
            return known[server.pid]

        return current

    def _choose_server(self, _: random.Random) -> tuple[ServerProcess, str]:
        """Return the server that a client calls next, and what is added to the client's name there."""
        return self.server, ""

    def _patience(self, choose: random.Random, _: Connections) -> float:
        """Return how many seconds a caller waits for its answer."""
        return choose.random() * 0.005 if choose.random() < self.options.impatient else 20.0

    # Clients -------------------------------------------------------------------------------------------------------

    async def call_at_random(self, number: int) -> None:
        """Initiate, cancel, read, until cancelled."""
        choose = random.Random(f"{self.options.seed} caller {number}")
        reach = self.reach(choose)
        while True:
            connections = reach()
            patience = self._patience(choose, connections)
            name = f"caller{number}{connections.at}"
            caller = Caller(name, self.recorder, connections.doors[choose.randrange(2)], patience)
            await self._call(choose, caller)
            pause = choose.random() * self.options.pause
            await (self._recover(connections.server) if caller.lost else asyncio.sleep(pause))

    async def _recover(self, lost: ServerProcess) -> None:
        """Wait for a server: whoever asks a port that nobody listens at only makes the history longer."""
        await asyncio.sleep(0.05)
        while self.server is lost and lost.popen.poll() is not None:  # noqa: ASYNC110 - nobody is told
            await asyncio.sleep(0.02)

    async def _call(self, choose: random.Random, caller: Caller) -> None:
        pool = self.pool
        request_id = f"r{choose.randrange(_REQUEST_IDS)}" if choose.random() < 0.15 else ""
        if request_id == "" and choose.random() < 0.4:
            request_id = f"own{choose.getrandbits(64):x}"
        what = choose.choices(("new", "batch", "cancel", "cancel_batch", "get", "list"), (3, 1, 4, 1, 6, 3))[0]
        if what == "new" or not pool.files:
            size = choose.choice(self.options.sizes)
            for file_id in await caller.initiate(size, request_id) or ():
                pool.add(file_id, size)
        elif what == "batch":
            sizes = [choose.choice(self.options.sizes) for _ in range(choose.randint(1, self.options.batch))]
            made = await caller.initiate_batch(sizes, request_id)
            if made is not None:
                pool.add_batch(made[0])
                for file_id, size in zip(made[1], sizes, strict=True):
                    pool.add(file_id, size)
        elif what == "cancel":
            await self._twice(choose, caller.cancel, choose.choice(list(pool.files)), request_id)
        elif what == "get" or not pool.batches:
            await caller.get(choose.choice(list(pool.files)))
        elif what == "cancel_batch":
            await self._twice(choose, caller.cancel_batch, choose.choice(pool.batches), request_id)
        else:
            await caller.list_batch(choose.choice(pool.batches))
            await caller.get_batch(choose.choice(pool.batches))

    @staticmethod
    async def _twice(choose: random.Random, cancel: Callable[..., object], target: str, request_id: str) -> None:
        """A caller in doubt asks again."""
        for _ in range(1 + (bool(request_id) and choose.random() < 0.5)):
            await cancel(target, "", request_id)  # type: ignore[misc]

    async def send_at_random(self, number: int) -> None:
        """Send files of the pool, until cancelled."""
        choose = random.Random(f"{self.options.seed} sender {number}")
        reach = self.reach(choose)
        while True:
            if not self.pool.files:
                await asyncio.sleep(0.005)
                continue
            file_id, size = choose.choice(list(self.pool.files.items()))
            asked = reach()
            caller = Caller(f"sender{number}{asked.at}", self.recorder, asked.doors[0], self._patience(choose, asked))
            found = await caller.get(file_id)
            if found is None:
                await self._recover(asked.server)
            elif found["status"] in {"pending", "uploading"} or choose.random() < 0.1:
                connections = reach()
                sender = Sender(f"sender{number}{connections.at}", self.recorder, connections)
                await self._send(choose, sender, file_id, size, found)
            await asyncio.sleep(choose.random() * self.options.pause)

    async def _send(
        self, choose: random.Random, sender: Sender, file_id: str, size: int, found: dict[str, object]
    ) -> None:
        self._streams += 1
        offset = int(str(found["bytes_received"]))
        if choose.random() < 0.05:
            offset += 1
        by_socket = choose.random() < 0.4
        ending = choose.choice((*ENDINGS, "close", "cancel") if by_socket else ENDINGS)
        plan = Plan(f"s{self._streams}", file_id, size, offset, ending, self.options.pause)
        await (sender.websocket(plan) if by_socket else sender.grpc(plan))

    async def watch_at_random(self, number: int) -> None:
        """Watch something: all, a batch with its files, or files by name."""
        choose = random.Random(f"{self.options.seed} watcher {number}")
        await asyncio.sleep(choose.random() * self.options.seconds / 3)
        while len(self.pool.files) < min(3, self.options.live) or not self.pool.batches:  # noqa: ASYNC110 - traffic fills it
            await asyncio.sleep(0.01)
        files = tuple(choose.sample(list(self.pool.files), min(3, self.options.live)))
        request = (
            Request(everything=True, progress=True),
            Request(batch_ids=tuple(self.pool.batches), with_files=True),
            Request(file_ids=files, batch_ids=tuple(self.pool.batches[-1:]), progress=True),
            Request(file_ids=files, until_final=True),
            Request(everything=True),
        )[number % 5]
        watcher = Watcher(
            f"watcher{number}", self.recorder, request, seed=f"{self.options.seed} {number}", slow=number % 2 == 1
        )
        self.watchers.append(watcher)
        await watcher.run(self.reach(choose))

    async def disturb(self) -> None:
        """Kill, stop or freeze the server now and then."""
        options = self.options
        choose = random.Random(f"{options.seed} nemesis")
        deeds = ["kill"] * options.kills + ["stop"] * options.stops + ["freeze"] * options.freezes
        choose.shuffle(deeds)
        for deed in deeds:
            await asyncio.sleep((0.5 + choose.random()) * options.seconds / (len(deeds) + 1))
            self.recorder.line("nemesis", deed)
            if deed == "freeze":
                self.server.popen.send_signal(signal.SIGSTOP)
                await asyncio.sleep(0.3)
                self.server.popen.send_signal(signal.SIGCONT)
                continue
            if deed == "kill":
                await asyncio.to_thread(self.server.kill)
            else:
                began = time.monotonic()
                code = await asyncio.to_thread(self.server.terminate)
                self.recorder.line("nemesis", "stopped", code=code, seconds=time.monotonic() - began)
            self.server = await asyncio.to_thread(self._start)

    # The whole -----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Traffic, then quiet: watchers catch up, tokens are tried again, and everything is read."""
        try:
            await self._traffic()
            self.recorder.line("world", "quiet")
            tables = await all_heard(self.recorder, self._look, self.rest_seconds, self._listen)
            self.recorder.line("world", "tables", **tables)
        finally:
            for each in self._connections:
                await each.close()

    def _look(self) -> Seen:
        """Read how everything was left."""
        return read_tables(self.server.data_dir)

    async def _listen(self) -> None:
        """Have every watcher catch up, and old tokens tried again."""
        choose = random.Random(self.options.seed)
        reach = self.reach(choose)
        await asyncio.gather(*(self._catch_up(watcher, reach()) for watcher in self.watchers))
        await self._probe(reach, choose)

    async def _catch_up(self, watcher: Watcher, connections: Connections) -> None:
        # One that is refused, or never gets its bookmark, is the checkers' business.
        with contextlib.suppress(TimeoutError, grpc.aio.AioRpcError):
            await watcher.catch_up(connections)

    async def _traffic(self) -> None:
        options = self.options
        work = [self.call_at_random(i) for i in range(options.callers)]
        work += [self.send_at_random(i) for i in range(options.senders)]
        work += [self.watch_at_random(i) for i in range(options.watchers)]
        tasks = [asyncio.create_task(each) for each in work]
        disturbing = asyncio.create_task(self.disturb())
        try:
            await asyncio.wait([disturbing, *tasks], timeout=options.seconds, return_when=asyncio.FIRST_EXCEPTION)
            await disturbing
        finally:
            for task in tasks:
                task.cancel()
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome
        # A page that has left is cancelled for after its grace: nothing changes any more once that has passed.
        await asyncio.sleep(1.0)

    async def _probe(self, reach: Callable[[], Connections], choose: random.Random) -> None:
        probes = []
        for i, watcher in enumerate(self.watchers):
            tokens = list(dict.fromkeys(watcher.tokens))
            for token in choose.sample(tokens, min(4, len(tokens))):
                request = watcher.request
                again = Request(request.file_ids, request.batch_ids, request.with_files, request.everything)
                probe = Watcher(f"probe{i}.{number_of(token)}", self.recorder, again, seed="")
                probe.token = token
                probes.append(probe)
        await asyncio.gather(*(self._catch_up(probe, reach()) for probe in probes))
