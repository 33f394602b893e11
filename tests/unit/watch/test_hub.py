"""The hub and its streams on a real store, without a door: what a slow, busy or resting watcher is given, and keeps."""

from __future__ import annotations

import asyncio
import gc
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
import pytest_asyncio

from support.stores import url_in
from upload_server.domain.caller import Caller
from upload_server.domain.errors import ShuttingDown
from upload_server.domain.observer import Observer
from upload_server.domain.states import File, FileSpec, FileStatus, Source
from upload_server.store.open import open_store
from upload_server.store.protocol import Store
from upload_server.store.values import Changes, Command, Targets
from upload_server.watch import Bookmarked, Changed, Progressed, WatchEvent, WatchHub, WatchRequest
from upload_server.watch import hub as hubs

Events = AsyncGenerator[WatchEvent, None]
# Against hanging: on a busy machine some of these take their time.
WAIT = 60.0
EVERYTHING = Targets(all=True)


def command(method: str) -> Command:
    return Command(Caller(Source.GRPC), method, datetime.now(UTC))


async def announce(store: Store) -> str:
    file_id = str(uuid.uuid4())
    await store.initiate_upload(FileSpec("a", 1, "", ""), file_id, command("InitiateUpload"))
    return file_id


async def announce_batch(store: Store, count: int) -> Sequence[str]:
    file_ids = [str(uuid.uuid4()) for _ in range(count)]
    specs = [FileSpec("a", 1, "", "")] * count
    await store.initiate_batch(specs, str(uuid.uuid4()), file_ids, command("InitiateBatch"))
    return file_ids


@pytest_asyncio.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = await open_store(url_in(tmp_path))
    yield opened
    await opened.close()


@asynccontextmanager
async def running(store: Store, *, history: int = 1000, bookmark_interval: float = 15) -> AsyncIterator[WatchHub]:
    """A hub that hands out what is committed."""
    hub = WatchHub(store, history=history, bookmark_interval=bookmark_interval, observer=Observer())
    store.on_commit(lambda _: hub.nudge())
    tail = asyncio.create_task(hub.run())
    try:
        async with asyncio.timeout(WAIT):
            yield hub
    finally:
        tail.cancel()
        await asyncio.wait([tail])


async def opened(events: Events) -> list[WatchEvent]:
    """Everything up to and with the first bookmark."""
    events_read = [await anext(events)]
    while not isinstance(events_read[-1], Bookmarked):
        events_read.append(await anext(events))
    return events_read


async def hear_up_to(number: int, events: Events) -> list[int]:
    """The numbers of the changes up to that one."""
    events_read: list[int] = []
    while events_read[-1:] != [number]:
        event = await anext(events)
        assert isinstance(event, Changed)
        events_read.append(event.change.no)
    return events_read


async def test_progress_without_end_holds_up_no_cancel(store: Store) -> None:
    sent_to, cancelled = await announce(store), await announce(store)
    request = WatchRequest(EVERYTHING, progress_interval=0.1)
    async with running(store) as hub, aclosing(hub.watch(request, None)) as events:
        await opened(events)
        hub.publish_progress(sent_to, "", "", 0)
        assert isinstance(await anext(events), Progressed)
        # From now on there is news of it whenever the watcher has taken some.
        hub.publish_progress(sent_to, "", "", 1)
        began = asyncio.get_running_loop().time()
        await store.cancel_file(cancelled, command("CancelFile"))
        events_read: list[WatchEvent] = []
        while len(events_read) < 100 and not (events_read and isinstance(events_read[-1], Changed)):
            events_read.append(await anext(events))
            hub.publish_progress(sent_to, "", "", len(events_read) + 1)
        ticks = (asyncio.get_running_loop().time() - began) / 0.1
    assert isinstance(events_read[-1], Changed)
    # Between two ticks there is one progress at most; without the cancel's own time it is there before the second one.
    assert len(events_read) <= 2 + ticks


@pytest.mark.parametrize("everything", [False, True], ids=["named", "everything"])
async def test_progress_known_before_the_end_is_not_told_after_it(store: Store, everything: bool) -> None:
    """A page can tell the end, or leave it out, before the tail does, and before the progress that came earlier."""
    file_id = await announce(store)
    await store.cancel_file(file_id, command("CancelFile"))
    targets = EVERYTHING if everything else Targets(file_ids=frozenset({file_id}))
    request = WatchRequest(targets, progress_interval=0.1)
    async with running(store, bookmark_interval=0.3) as hub, aclosing(hub.watch(request, None)) as events:
        opening = asyncio.create_task(anext(events))
        while not hub.open_watches:  # noqa: ASYNC110 - it joins in the next turn
            await asyncio.sleep(0)
        hub.publish_progress(file_id, "", "", 1)
        events_read = [await opening, await anext(events), await anext(events)]
    kinds = [type(event) for event in events_read if not isinstance(event, Changed)]
    assert kinds == [Bookmarked] * len(kinds)


async def test_progress_that_comes_late_is_not_told_after_the_end(store: Store) -> None:
    """Progress and a cancel in one commit: a page can tell the end before the loop hears of either."""
    file_id = await announce(store)
    request = WatchRequest(EVERYTHING, progress_interval=0.1)
    async with running(store, bookmark_interval=0.3) as hub, aclosing(hub.watch(request, None)) as events:
        await opened(events)
        await store.cancel_file(file_id, command("CancelFile"))
        # Where the disk is slow bookmarks come before it.
        while isinstance(event := await anext(events), Bookmarked):
            pass
        assert isinstance(event, Changed)
        hub.publish_progress(file_id, "", "", 1)
        assert isinstance(await anext(events), Bookmarked)


def in_memory(file_ids: Sequence[str]) -> int:
    """How many rows of these files there are; of others' that are left over there may be any number."""
    wanted = frozenset(file_ids)
    # Its type, as isinstance() asks a proxy of another test, whose object is gone, for its class.
    return sum(type(each) is File and each.file_id in wanted for each in gc.get_objects())


async def test_resting_watches_keep_nothing_of_what_they_sent(store: Store) -> None:
    file_ids = await announce_batch(store, 100)
    request = WatchRequest(Targets(file_ids=frozenset(file_ids)))
    async with running(store) as hub:
        streams = [hub.watch(request, None) for _ in range(20)]
        for events in streams:
            await opened(events)
        resting = [asyncio.ensure_future(anext(events)) for events in streams]
        await asyncio.sleep(0)
        kept = in_memory(file_ids)
        await store.cancel_file(file_ids[0], command("CancelFile"))
        await asyncio.gather(*resting)
        for events in streams:
            await events.aclose()
    # The store's threads keep what they read last, the watches none of their 2,000.
    assert kept < 1000


async def test_what_all_have_taken_is_not_kept(store: Store) -> None:
    request = WatchRequest(EVERYTHING)
    async with (
        running(store) as hub,
        aclosing(hub.watch(request, None)) as events,
        aclosing(hub.watch(request, None)) as others,
    ):
        await opened(events)
        await opened(others)
        announced = set()
        for _ in range(50):
            events_read = asyncio.gather(anext(events), anext(others))
            announced.add(await announce(store))
            await events_read
        del events_read
        kept = sum(type(each) is Changed and each.key in announced for each in gc.get_objects())
    assert kept < 10


async def test_the_hub_reads_nothing_while_nobody_watches(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    reads, read_changes = [], store.read_changes

    async def noted(targets: Targets, sees: str | None, after: int, limit: int, skip_final_upto: int = 0) -> Changes:
        reads.append(after)
        return await read_changes(targets, sees, after, limit, skip_final_upto)

    monkeypatch.setattr(store, "read_changes", noted)
    async with running(store) as hub:
        for _ in range(3):
            await announce(store)
        await asyncio.sleep(0)
        assert reads == []
        async with aclosing(hub.watch(WatchRequest(EVERYTHING), None)) as events:
            assert len(await opened(events)) == 4
            await announce(store)
            assert isinstance(await anext(events), Changed)
    # The opening from 0, and the hub from what was there when it opened.
    assert reads == [0, 3]


async def turns_until(over: Callable[[], bool]) -> int:
    """Count the turns of the event loop that others have."""
    turns = 0
    while not over():
        await asyncio.sleep(0)
        turns += 1
    return turns


async def test_others_get_their_turn_while_much_is_handed_out(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hubs, "_TURN", 100)
    file_ids = await announce_batch(store, 100)
    request = WatchRequest(Targets(file_ids=frozenset(file_ids)))
    async with running(store) as hub:
        streams = [hub.watch(request, None) for _ in range(20)]
        for events in streams:
            await opened(events)
        batch_id = (await store.get_file(file_ids[0])).batch_id
        cancelling = asyncio.create_task(store.cancel_batch(batch_id, command("CancelBatch")))
        await anext(streams[0])
        turns = await turns_until(lambda: hub._shared.published >= store.last_change)
        await cancelling
        for events in streams:
            await events.aclose()
    # 100 changes for 20 watchers, 100 in a turn; the first ones were handed out before we looked.
    assert turns >= 10


class Listening:
    """An outlet that is free for so many events, until it is told to take more."""

    def __init__(self, takes: int) -> None:
        self.heard: list[WatchEvent] = []
        self.takes = takes

    @property
    def free(self) -> bool:
        return len(self.heard) < self.takes

    def send(self, event: WatchEvent) -> None:
        assert self.free
        self.heard.append(event)


async def test_what_an_outlet_takes_at_once_wakes_nobody_and_what_it_does_not_take_is_yielded(store: Store) -> None:
    file_ids = [await announce(store) for _ in range(5)]
    outlet = Listening(3)
    async with running(store) as hub, aclosing(hub.watch(WatchRequest(EVERYTHING), None, outlet)) as events:
        await opened(events)
        yielded = asyncio.ensure_future(anext(events))
        for file_id in file_ids:
            await store.cancel_file(file_id, command("CancelFile"))
            await turns_until(lambda: hub._shared.published >= store.last_change)
        heard = [*outlet.heard, await yielded, await anext(events)]
        # A bookmark too goes out where it is free again.
        outlet.takes = 4
        hub._shared.bookmark_interval = 0.05
        await_end = asyncio.ensure_future(anext(events))
        await turns_until(lambda: not outlet.free)
        assert not await_end.done()
        hub.close()
        with pytest.raises(ShuttingDown):
            await await_end
    assert [event.key for event in heard if isinstance(event, Changed)] == file_ids
    assert isinstance(outlet.heard[3], Bookmarked)


async def test_a_stream_ends_after_the_last_final_state_that_its_outlet_took(store: Store) -> None:
    file_id = await announce(store)
    outlet = Listening(9)
    request = WatchRequest(Targets(file_ids=frozenset({file_id})), until_final=True)
    async with running(store) as hub:
        events = hub.watch(request, None, outlet)
        await opened(events)
        ending = asyncio.ensure_future(anext(events, None))
        await store.cancel_file(file_id, command("CancelFile"))
        assert await ending is None
        assert hub.open_watches == 0
    assert [event.key for event in outlet.heard if isinstance(event, Changed)] == [file_id]


async def test_others_get_their_turn_while_many_streams_are_woken(store: Store) -> None:
    file_id = await announce(store)
    requests = [WatchRequest(EVERYTHING), WatchRequest(Targets(file_ids=frozenset({file_id})))] * 160
    async with running(store) as hub:
        streams = [hub.watch(request, None) for request in requests]
        for events in streams:
            await opened(events)
        listening = [asyncio.create_task(anext(events)) for events in streams]
        await asyncio.sleep(0)
        await store.cancel_file(file_id, command("CancelFile"))
        await asyncio.wait(listening, return_when=asyncio.FIRST_COMPLETED)
        turns = await turns_until(lambda: all(each.done() for each in listening))
        for events in streams:
            await events.aclose()
    # 320 streams, at most 8 in a turn; the first ones were awake before we looked.
    assert turns >= 30


async def test_a_watcher_that_falls_behind_hears_every_end_once_and_in_order(store: Store) -> None:
    file_ids = await announce_batch(store, 50)
    async with running(store, history=5) as hub, aclosing(hub.watch(WatchRequest(EVERYTHING), None)) as events:
        await opened(events)
        for file_id in file_ids:
            await store.cancel_file(file_id, command("CancelFile"))
        events_read: list[Changed] = []
        while len({e.key for e in events_read if e.final}) < 51:
            event = await anext(events)
            assert isinstance(event, Changed)
            events_read.append(event)
    numbers = [event.change.no for event in events_read]
    assert numbers == sorted(set(numbers))
    ended = [event.key for event in events_read if event.final and isinstance(event.change.record, File)]
    assert ended == list(file_ids)


async def test_a_watcher_that_falls_behind_again_while_it_catches_up_hears_of_everything(store: Store) -> None:
    """Found by a history of the profile "little room", seed 1: what came last was sent first, and the rest never."""
    request = WatchRequest(EVERYTHING)
    async with (
        running(store, history=1) as hub,
        aclosing(hub.watch(request, None)) as events,
        aclosing(hub.watch(request, None)) as witness,
    ):
        await opened(events)
        await opened(witness)
        events_read: list[int] = []
        for _ in range(3):
            await announce_batch(store, 3)
            await hear_up_to(store.last_change, witness)
            # The last of them is being sent while the next ones are handed over.
            events_read += await hear_up_to(store.last_change, events)
    assert events_read == list(range(events_read[0], events_read[0] + 12))


async def test_a_drain_does_not_wait_for_the_rest_of_a_page(store: Store) -> None:
    await announce_batch(store, 100)
    async with running(store) as hub, aclosing(hub.watch(WatchRequest(EVERYTHING), None)) as events:
        await anext(events)
        hub.close()
        with pytest.raises(ShuttingDown):
            await anext(events)


async def test_until_final_ends_after_the_last_end(store: Store) -> None:
    file_ids = [await announce(store), await announce(store)]
    request = WatchRequest(Targets(file_ids=frozenset(file_ids)), until_final=True)
    async with running(store) as hub, aclosing(hub.watch(request, None)) as events:
        await opened(events)
        for file_id in file_ids:
            await store.cancel_file(file_id, command("CancelFile"))
        events_read = [event async for event in events]
        assert hub.open_watches == 0
    assert [e.change.record.status for e in events_read if isinstance(e, Changed)] == [FileStatus.CANCELLED] * 2


async def test_silence_is_measured_from_what_was_said_last(store: Store) -> None:
    """The alarm is not set anew for each change; changes meanwhile must put the bookmark off all the same."""
    file_id = await announce(store)
    loop = asyncio.get_running_loop()
    request = WatchRequest(Targets(file_ids=frozenset({file_id})))
    async with running(store, bookmark_interval=0.4) as hub, aclosing(hub.watch(request, None)) as events:
        await opened(events)
        change = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0.2)
        before = loop.time()
        await store.cancel_file(file_id, command("CancelFile"))
        # Where the disk is slow a bookmark comes before it.
        event = await change
        while isinstance(event, Bookmarked):
            event = await anext(events)
        assert isinstance(event, Changed)
        assert isinstance(await anext(events), Bookmarked)
    # From the opening it is 0.2 s.
    assert loop.time() - before >= 0.35


async def test_watchers_that_do_not_read_hold_few_rows_together(store: Store) -> None:
    """Each read a page of 500 rows: thousands of watchers, whose callers sent a hundred bytes each, held gigabytes."""
    file_ids = await announce_batch(store, 600)
    request = WatchRequest(EVERYTHING)
    async with running(store) as hub, AsyncExitStack() as stack:
        watches = [await stack.enter_async_context(aclosing(hub.watch(request, None))) for _ in range(60)]
        for events in watches:
            await anext(events)
        assert in_memory(file_ids) < 22_000
        # Who reads on misses nothing, and leaves the room to others.
        for events in watches:
            assert len(await opened(events)) == len(file_ids) + 1  # the batch, a bookmark, and without the first
        for _ in range(3):
            await anext(await stack.enter_async_context(aclosing(hub.watch(request, None))))
        assert sum(type(thing) is File for thing in gc.get_objects()) >= 1500


async def test_an_outlet_gets_the_progress_of_every_file_of_a_tick(store: Store) -> None:
    file_ids = [await announce(store) for _ in range(3)]
    outlet = Listening(9)
    request = WatchRequest(Targets(file_ids=frozenset(file_ids)), progress_interval=0.1)
    async with running(store) as hub, aclosing(hub.watch(request, None, outlet)) as events:
        await opened(events)
        resting = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0)
        for file_id in file_ids:
            hub.publish_progress(file_id, "", "", 1)
        async with asyncio.timeout(WAIT):
            while len(outlet.heard) < len(file_ids):  # noqa: ASYNC110 - an outlet tells nobody
                await asyncio.sleep(0.01)
        assert {event.file_id for event in outlet.heard if isinstance(event, Progressed)} == set(file_ids)
        resting.cancel()
        await asyncio.wait({resting})
