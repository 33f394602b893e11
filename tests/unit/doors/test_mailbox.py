"""The mailbox of every door: what it reads and when, what it counts, and when its sender is idle."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from unit.ingest.world import CALLER, KIB, MIB, World, open_world
from upload_server.domain.errors import InvalidField, SizeExceeded, UploadCancelled, UploadIdle
from upload_server.doors.mailbox import MAX_DATA_BYTES, Bytes, End, Mailbox, take_bytes
from upload_server.ingest import Memory

Sent = Bytes | str | End


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with open_world(tmp_path / "node") as opened:
        yield opened


class Sender:
    """What a sender sends, and how many reads have begun."""

    def __init__(self, *messages: Sent) -> None:
        self.reads = 0
        self._queue: asyncio.Queue[Sent] = asyncio.Queue()
        self.send(*messages)

    def send(self, *messages: Sent) -> None:
        for message in messages:
            self._queue.put_nowait(message)

    async def read(self) -> Sent:
        self.reads += 1
        return await self._queue.get()


async def rest() -> None:
    """Let every task go as far as it can."""
    for _ in range(10):
        await asyncio.sleep(0)


def box(
    sender: Sender, memory: Memory, *, gated: bool = True, idle_seconds: float = 60, least_bytes: int = 0
) -> Mailbox[str]:
    return Mailbox(sender.read, memory, idle_seconds=idle_seconds, least_bytes=least_bytes, gated=gated)


async def test_nothing_is_read_before_the_door_asks() -> None:
    sender = Sender(b"x")
    async with box(sender, Memory(MIB)) as mailbox:
        await rest()
        assert sender.reads == 0
        assert mailbox.take() is None
        await mailbox.wait()
        assert mailbox.take() == b"x"


async def test_two_messages_are_read_ahead_and_counted_until_the_mailbox_is_left() -> None:
    memory = Memory(MIB)
    sender = Sender(*[b"x" * 300 * KIB] * 4)
    async with box(sender, memory) as mailbox:
        mailbox.take()
        await rest()
        assert sender.reads == 2
        assert memory.is_crowded()
    assert not memory.is_crowded()


@pytest.mark.parametrize(("gated", "reads"), [(True, 1), (False, 2)])
async def test_while_memory_is_short_a_gated_mailbox_reads_one_message_and_no_more(gated: bool, reads: int) -> None:
    memory = Memory(MIB)
    sender = Sender(b"a")
    async with box(sender, memory, gated=gated) as mailbox:
        memory.hold(MIB)
        mailbox.take()
        await mailbox.wait()
        sender.send("cancel", "more")
        assert mailbox.take() == b"a"
        await rest()
        waiting = asyncio.create_task(mailbox.wait())
        await rest()
        assert (sender.reads, waiting.done()) == (reads, not gated)
        memory.hold(-MIB)
        await waiting
        assert mailbox.take() == "cancel"


async def test_a_mailbox_that_waits_for_memory_discards_all_the_same() -> None:
    memory = Memory(MIB)
    sender = Sender(b"a", b"b", End())
    async with box(sender, memory) as mailbox:
        mailbox.take()
        memory.hold(MIB)
        await rest()
        async with asyncio.timeout(30):
            await mailbox.discard(60)
        assert mailbox.exhausted


async def test_a_sender_that_goes_on_is_discarded_for_so_long_and_no_longer() -> None:
    async with box(Sender(b"a"), Memory(MIB)) as mailbox, asyncio.timeout(30):
        await mailbox.discard(0.01)
        assert mailbox.take() is None
        assert not mailbox.exhausted


async def test_the_end_comes_after_the_last_message_and_stays() -> None:
    end = End()
    async with box(Sender("last", end), Memory(MIB)) as mailbox:
        mailbox.take()
        await rest()
        assert (mailbox.exhausted, mailbox.end) == (True, None)
        assert mailbox.take() == "last"
        assert (mailbox.take(), mailbox.end, mailbox.end) == (None, end, end)


async def test_a_read_that_fails_is_an_end() -> None:
    async def read() -> Sent:
        raise ConnectionResetError

    mailbox: Mailbox[str] = Mailbox(read, Memory(MIB), idle_seconds=60)
    async with mailbox:
        mailbox.take()
        await mailbox.wait()
        assert isinstance(mailbox.end, End)


async def test_bytes_are_written_until_another_message_comes(world: World) -> None:
    upload = await world.open(await world.initiate(4))
    async with box(Sender(b"ab", memoryview(b"cd"), "commit"), world.ingest.memory) as mailbox:
        mailbox.follow(upload)
        assert await take_bytes(upload, mailbox) == "commit"
    assert (await upload.commit("", CALLER)).bytes_received == 4
    await upload.close()


async def test_a_message_of_bytes_has_a_bound(world: World) -> None:
    upload = await world.open(await world.initiate(2 * MIB))
    async with box(Sender(bytes(MAX_DATA_BYTES + 1)), world.ingest.memory) as mailbox:
        with pytest.raises(InvalidField, match="1048576"):
            await take_bytes(upload, mailbox)
    await upload.close()


async def test_a_silent_sender_is_idle_and_messages_without_a_byte_are_silence(world: World) -> None:
    upload = await world.open(await world.initiate(4))
    async with box(Sender(b"", b""), world.ingest.memory, idle_seconds=0.05) as mailbox:
        mailbox.follow(upload)
        with pytest.raises(UploadIdle):
            await take_bytes(upload, mailbox)
    await upload.close()


@pytest.mark.parametrize(("least_bytes", "idle"), [(0, False), (3, False), (1000, True)])
async def test_a_sender_that_brings_too_little_is_idle_however_often_it_sends(
    world: World, least_bytes: int, idle: bool
) -> None:
    """A byte every 60 ms, for twice as long as a sender may be idle."""
    upload = await world.open(await world.initiate(1000))
    sender, loop = Sender(), asyncio.get_running_loop()
    for number in range(30):
        loop.call_later(0.06 * number, sender.send, b"x")
    loop.call_later(1.83, sender.send, "said")
    async with box(sender, world.ingest.memory, idle_seconds=0.9, least_bytes=least_bytes) as mailbox:
        mailbox.follow(upload)
        if idle:
            with pytest.raises(UploadIdle, match=r"Fewer than 1000 bytes came in 0\.9 s"):
                await take_bytes(upload, mailbox)
            assert 0 < upload.received < 30
        else:
            assert await take_bytes(upload, mailbox) == "said"
    await upload.close()


async def test_after_the_last_byte_a_commit_may_take_as_long_as_a_byte(world: World) -> None:
    """Of a file that is smaller than what an upload must bring."""
    upload = await world.open(await world.initiate(4))
    sender, loop = Sender(), asyncio.get_running_loop()
    loop.call_later(1.2, sender.send, b"abcd")
    loop.call_later(2.7, sender.send, "commit")
    async with box(sender, world.ingest.memory, idle_seconds=2.1, least_bytes=1000) as mailbox:
        mailbox.follow(upload)
        assert await take_bytes(upload, mailbox) == "commit"
    await upload.close()


async def test_a_silent_sender_hears_of_a_cancel(world: World) -> None:
    file_id = await world.initiate(4)
    upload = await world.open(file_id)
    async with box(Sender(), world.ingest.memory) as mailbox:
        mailbox.follow(upload)
        taken = take_bytes(upload, mailbox)
        taking = asyncio.create_task(taken)
        await rest()
        await world.cancel(file_id)
        with pytest.raises(UploadCancelled):
            await taking
    await upload.close()


@pytest.mark.parametrize(("least_bytes", "waits"), [(0, False), (0, True), (1000, True)])
async def test_the_disk_s_delay_is_not_the_sender_s(world: World, least_bytes: int, waits: bool) -> None:
    """A sender whom a busy disk has kept waiting for longer than it may be idle is not idle."""
    upload = await world.open(await world.initiate(4))
    sender = Sender(b"ab")

    async def slowly(data: Bytes) -> None:
        await asyncio.sleep(0.7)
        await upload.write(data)
        asyncio.get_running_loop().call_later(0.02, sender.send, "commit")

    async with box(sender, world.ingest.memory, idle_seconds=0.5, least_bytes=least_bytes) as mailbox:
        mailbox.follow(upload)
        if waits:
            # The door writes itself what waits for it.
            assert mailbox.silent
            await rest()
        assert await take_bytes(upload, mailbox, write=slowly) == "commit"
    await upload.close()


async def test_after_the_last_byte_silence_is_an_answer(world: World) -> None:
    upload = await world.open(await world.initiate(2))
    async with box(Sender(b"ab"), world.ingest.memory) as mailbox:
        mailbox.follow(upload)
        assert await take_bytes(upload, mailbox, commit_seconds=0.01) is None
    await upload.close()


async def test_what_has_become_durable_interrupts_the_wait(world: World) -> None:
    upload = await world.open(await world.initiate(2))
    async with box(Sender(b"a"), world.ingest.memory) as mailbox:
        mailbox.follow(upload)
        async with asyncio.timeout(30):
            assert await take_bytes(upload, mailbox, told=0) is None
    assert upload.durable == 1
    await upload.close()


class WatchedMailbox(Mailbox[str]):
    """Counts how often its door looks for a message."""

    looks = 0

    def take(self) -> Bytes | str | None:
        self.looks += 1
        return super().take()


async def test_bytes_that_come_while_the_door_waits_do_not_wake_it(world: World) -> None:
    """In order with those that it takes itself, and with the message behind them."""
    upload = await world.open(await world.initiate(6))
    sender = Sender(b"ab")
    async with WatchedMailbox(sender.read, world.ingest.memory, idle_seconds=60) as mailbox:
        mailbox.follow(upload)
        taken = take_bytes(upload, mailbox)
        taking = asyncio.create_task(taken)
        await rest()
        looks = mailbox.looks
        for data in (b"c", b"d", b"ef"):
            sender.send(data)
            await rest()
        # The last byte does: from there on the door counts how long the sender is silent.
        assert (upload.received, mailbox.looks) == (6, looks + 1)
        sender.send("commit")
        assert await taking == "commit"
    await upload.commit(hashlib.sha256(b"abcdef").hexdigest(), CALLER)
    await upload.close()


async def test_after_bytes_that_were_refused_nothing_more_is_written(world: World) -> None:
    upload = await world.open(await world.initiate(4))
    sender = Sender(b"ab")
    async with box(sender, world.ingest.memory) as mailbox:
        mailbox.follow(upload)
        taken = take_bytes(upload, mailbox)
        taking = asyncio.create_task(taken)
        await rest()
        sender.send(b"cde", b"c", "commit")
        with pytest.raises(SizeExceeded):
            await taking
        with pytest.raises(SizeExceeded):
            await take_bytes(upload, mailbox)
        async with asyncio.timeout(30):
            await mailbox.discard(0.01)
    assert upload.received == 2
    await upload.close()
