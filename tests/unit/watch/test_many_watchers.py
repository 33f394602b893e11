"""Many watchers of random speed, which join, leave and resume while files and batches change: what each has heard."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from pathlib import Path
from random import Random

import pytest

from contract.store.kit import EVERYTHING, batch_of, command, everything, now, pending
from support.stores import url_in
from upload_server.domain.errors import UploadError
from upload_server.domain.observer import Observer
from upload_server.domain.tokens import ResumeToken
from upload_server.store.open import open_store
from upload_server.store.protocol import Store
from upload_server.store.values import Change, Targets
from upload_server.watch import Changed, Progressed, WatchEvent, WatchHub, WatchRequest
from upload_server.watch.events import key_of

WAIT = 60.0


class World:
    """Files and batches in a store, and those who change them."""

    def __init__(self, store: Store, random: Random) -> None:
        self.store = store
        self._random = random
        history, bookmark_interval = random.randint(1, 5), random.choice([0.02, 0.2])
        self.hub = WatchHub(store, history=history, bookmark_interval=bookmark_interval, observer=Observer())
        store.on_commit(lambda _: self.hub.nudge())
        self.files: dict[str, str] = {}
        self.batches: list[str] = []

    async def initiate(self) -> None:
        """A batch of some files, or a file alone."""
        count = self._random.choice([0, 0, 1, 3, 40])
        if count:
            batch, file_ids = await batch_of(self.store, count)
            self.batches.append(batch.batch_id)
            self.files |= dict.fromkeys(file_ids, batch.batch_id)
        else:
            self.files[(await pending(self.store)).file_id] = ""

    async def change(self) -> None:
        """Something happens to a file or a batch; most of it may have been final before."""
        file_id, batch_id = self._random.choice(list(self.files.items()))
        deed = self._random.randrange(10)
        with contextlib.suppress(UploadError):
            if deed == 0:
                await self.initiate()
            elif deed == 1 and batch_id:
                await self.store.cancel_batch(batch_id, command())
            elif deed < 5:
                await self.store.claim(file_id, 0, command())
            elif deed < 8:
                await self.store.cancel_file(file_id, command())
            elif not (await self.store.get_file(file_id)).status.final:
                await self._progress(file_id, batch_id)

    async def _progress(self, file_id: str, batch_id: str) -> None:
        """As the ingest does it: durable bytes are told of when they are recorded."""
        claim = (await self.store.claim(file_id, 0, command())).answer
        if await self.store.record_progress(file_id, claim.file.fence, 0, now()):
            self.hub.publish_progress(file_id, batch_id, "", 0)

    async def work(self, deeds: int) -> None:
        for _ in range(deeds):
            await self.change()
            if self._random.random() < 0.1:
                await asyncio.sleep(self._random.random() / 20)


class Listener:
    """One who watches, leaves and resumes; notes each change, and checks what it is told against what it was."""

    def __init__(self, world: World, random: Random) -> None:
        self._world = world
        self._random = random
        self._targets = self._choose()
        self._slow = random.choice([0.0, 0.05, 0.5])
        self._began = 0
        self._token: str | None = None
        self._heard: dict[str, Change] = {}
        self._last = 0
        # Half of them are outlets of their streams, too.
        self._outlet = self if random.random() < 0.5 else None
        self._taken = asyncio.Event()
        self._over: Callable[[], bool] = bool
        self.at_once = 0

    def _choose(self) -> Targets:
        if self._random.random() < 0.5:
            return EVERYTHING
        file_ids, batch_ids = list(self._world.files), self._world.batches
        return Targets(
            file_ids=frozenset(self._random.sample(file_ids, min(len(file_ids), 20))),
            batch_ids=frozenset(self._random.sample(batch_ids, min(len(batch_ids), 3))),
            include_batch_files=self._random.random() < 0.5,
        )

    async def listen(self, stay: asyncio.Event, over: asyncio.Event) -> None:
        """Watch for a while, leave at any moment, resume; at last stay until everything is over."""
        while not stay.is_set():
            visit = asyncio.create_task(self._visit(lambda: False))
            await asyncio.wait([visit], timeout=self._random.expovariate(5))
            visit.cancel()
            await asyncio.wait([visit])
            if not visit.cancelled():
                visit.result()
        async with asyncio.timeout(WAIT):
            await self._visit(lambda: over.is_set() and self._reached() >= self._world.store.last_change)
        self._check_against(await everything(self._world.store))

    def _reached(self) -> int:
        return ResumeToken.decode(self._token).no if self._token else 0

    async def _visit(self, over: Callable[[], bool]) -> None:
        token = ResumeToken.decode(self._token) if self._token else None
        request = WatchRequest(self._targets, token, progress_interval=0.01)
        self._over = over
        self._taken.set()
        async with aclosing(self._world.hub.watch(request, None, self._outlet)) as events:
            await self._follow(events, over)

    async def _follow(self, events: AsyncGenerator[WatchEvent, None], over: Callable[[], bool]) -> None:
        while not over():
            event = await anext(events)
            # As a door does it: what went out at once is taken first.
            await self._taken.wait()
            # Noted before the pause, in which this one may leave.
            self._note(event)
            if self._random.random() < self._slow:
                await asyncio.sleep(self._random.random() / 50)

    @property
    def free(self) -> bool:
        """Whether it has taken what was sent at once, and does not want to be asked whether it is over."""
        return self._taken.is_set() and not self._over()

    def send(self, event: WatchEvent) -> None:
        """Hear at once, and be a while about it."""
        assert self.free
        self._note(event)
        self.at_once += 1
        if self._random.random() < self._slow:
            self._taken.clear()
            asyncio.get_running_loop().call_later(self._random.random() / 50, self._taken.set)

    def _note(self, event: WatchEvent) -> None:
        if self._token is None:
            # What was final when the stream opened is left out, and that was before now.
            self._began = self._world.store.last_change
        if isinstance(event, Changed):
            before, record = self._heard.get(event.key), event.change.record
            assert event.change.no > self._last
            assert before is None or (record.revision > before.record.revision and not before.record.status.final)
            self._last, self._heard[event.key] = event.change.no, event.change
        elif isinstance(event, Progressed):
            assert event.file_id not in self._heard or not self._heard[event.file_id].record.status.final
        assert ResumeToken.decode(event.token).no >= self._reached()
        self._token = event.token

    def _check_against(self, store: list[Change]) -> None:
        """The last it heard of each target is its state."""
        for change in store:
            key = key_of(change.record)
            if self._concerned(change):
                assert self._heard[key].no == change.no

    def _concerned(self, change: Change) -> bool:
        key, targets = key_of(change.record), self._targets
        if targets.all:
            return change.no > self._began or not change.record.status.final
        batch_id = self._world.files.get(key, "")
        named = key in targets.file_ids | targets.batch_ids
        return named or (targets.include_batch_files and batch_id in targets.batch_ids)


@pytest.mark.parametrize("seed", range(2))
async def test_each_hears_every_end_once_in_order_and_no_progress_after_it(tmp_path: Path, seed: int) -> None:
    random = Random(seed)
    store = await open_store(url_in(tmp_path))
    world = World(store, random)
    tail = asyncio.create_task(world.hub.run())
    for _ in range(20):
        await world.initiate()
    stay, over = asyncio.Event(), asyncio.Event()
    listeners = [Listener(world, random) for _ in range(40)]
    listening = [asyncio.create_task(listener.listen(stay, over)) for listener in listeners]
    await asyncio.gather(*(world.work(50) for _ in range(6)))
    stay.set()
    await asyncio.gather(*(world.work(20) for _ in range(3)))
    over.set()
    await asyncio.gather(*listening)
    assert sum(listener.at_once for listener in listeners) > 10
    assert world.hub.open_watches == 0
    tail.cancel()
    await asyncio.wait([tail])
    await store.close()
