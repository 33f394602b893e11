"""Calls of one principal wait for one another while others call, cancels before the others, and for nobody else's."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from upload_server.domain.errors import Overloaded
from upload_server.doors import turns as module
from upload_server.doors.turns import Turns

CANCELS, OTHERS = True, False


@pytest.fixture(autouse=True)
def _turns_that_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long a busy machine takes."""
    monkeypatch.setattr(module, "_LONGEST_SECONDS", 60.0)
    monkeypatch.setattr(module, "_CANCELS_IN_A_ROW", 2)


class World:
    """Calls that go on until they are let go."""

    def __init__(self) -> None:
        self.turns = Turns()
        self.running: Counter[tuple[str, bool]] = Counter()
        self.most: Counter[tuple[str, bool]] = Counter()
        self.began: list[int] = []
        self.most_of_ada = 0
        self.over = asyncio.Event()

    async def call(self, principal: str, number: int = 0, *, cancels: bool = OTHERS) -> None:
        async with self.turns.turn(principal, cancels=cancels):
            self.began.append(number)
            self.running[principal, cancels] += 1
            self.most[principal, cancels] = max(self.most[principal, cancels], self.running[principal, cancels])
            self.most_of_ada = max(self.most_of_ada, self.running["ada", CANCELS] + self.running["ada", OTHERS])
            await self.over.wait()
            await asyncio.sleep(0)
            self.running[principal, cancels] -= 1

    def start(self, count: int, principal: str, *, cancels: bool = OTHERS, first: int = 0) -> list[asyncio.Task[None]]:
        return [
            asyncio.create_task(self.call(principal, number, cancels=cancels)) for number in range(first, first + count)
        ]

    async def forgotten(self) -> None:
        """Wait until nothing is kept of anybody: turns rest a little."""
        async with asyncio.timeout(30):
            # Nothing else shows it, nor says so.
            while self.turns._lines or self.turns._had:  # noqa: ASYNC110
                await asyncio.sleep(0.005)


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_who_calls_alone_waits_for_nothing_and_calls_without_a_name_do_not_either() -> None:
    world = World()
    async with asyncio.timeout(30):
        world.turns._shared_until = 0.0
        world.turns._latest = "ada"
        tasks = world.start(50, "ada") + world.start(50, "")
        await settle()
        assert (world.running["ada", OTHERS], world.running["", OTHERS]) == (50, 50)
        world.over.set()
        await asyncio.gather(*tasks)
    await world.forgotten()


async def test_while_others_call_one_goes_on_at_once_cancels_first_but_few_in_a_row() -> None:
    world = World()
    async with asyncio.timeout(30):
        tasks = world.start(1, "bob") + world.start(5, "ada")
        await settle()
        tasks += world.start(3, "ada", cancels=CANCELS, first=10)
        await settle()
        assert world.running == {("ada", OTHERS): 1, ("bob", OTHERS): 1}
        world.over.set()
        await asyncio.gather(*tasks)
    assert world.most == {("ada", OTHERS): 1, ("ada", CANCELS): 1, ("bob", OTHERS): 1}
    assert world.most_of_ada == 1
    # No cancel waits for announcements but the one that goes on, and none are kept out; each as they came.
    assert world.began == [0, 0, 10, 11, 1, 12, 2, 3, 4]
    await world.forgotten()


async def test_a_turn_rests_while_another_principal_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_REST_SECONDS", 0.2)
    world = World()
    async with asyncio.timeout(30):
        others = world.start(1, "bob")
        await settle()
        first = world.turns.turn("ada")
        await first.__aenter__()
        waiting = world.start(3, "ada")
        await settle()
        first.give()
        await settle()
        assert world.running["ada", OTHERS] == 0
        world.over.set()
        await asyncio.gather(*others, waiting[0])
        # Nobody else calls any more: what ends now is followed at once.
        await asyncio.gather(*waiting)
    assert world.began == [0, 0, 1, 2]


@pytest.mark.parametrize("cancels", [CANCELS, OTHERS])
async def test_a_turn_rests_three_times_as_long_as_it_took(monkeypatch: pytest.MonkeyPatch, cancels: bool) -> None:
    monkeypatch.setattr(module, "_REST_SECONDS", 0.0)
    turns, clock = Turns(), asyncio.get_running_loop().time
    began = []

    async def work() -> None:
        async with turns.turn("ada", cancels=cancels):
            began.append(clock())
            await asyncio.sleep(0.02)

    async with asyncio.timeout(30), turns.turn("bob"):
        await asyncio.gather(work(), work())
    assert began[1] - began[0] >= 0.02 * 4


@pytest.mark.parametrize("waits_for_disk", [False, True])
async def test_who_has_a_turn_for_long_keeps_no_cancel_of_its_own_principal_waiting(
    monkeypatch: pytest.MonkeyPatch, waits_for_disk: bool
) -> None:
    if not waits_for_disk:
        monkeypatch.setattr(module, "_LONGEST_SECONDS", 0.05)
    world = World()
    async with asyncio.timeout(30):
        others = world.start(1, "bob")
        await settle()
        async with world.turns.turn("ada", waits_for_disk=waits_for_disk), world.turns.turn("ada", cancels=CANCELS):
            pass
        world.over.set()
        await asyncio.gather(*others)
    await world.forgotten()


async def test_who_leaves_while_it_waits_keeps_no_turn() -> None:
    world = World()
    async with asyncio.timeout(30):
        tasks = world.start(1, "bob") + world.start(5, "ada")
        await settle()
        tasks[-1].cancel()
        await settle()
        # One has just been given its turn, and leaves before it knows.
        world.over.set()
        tasks[1].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    await world.forgotten()


async def test_who_waits_too_long_or_behind_too_many_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_WAITING", 3)
    monkeypatch.setattr(module, "_WAIT_SECONDS", 0.5)
    world = World()
    async with asyncio.timeout(30):
        tasks = world.start(1, "bob") + world.start(4, "ada")
        await settle()
        with pytest.raises(Overloaded, match="Too many of your calls wait for one another"):
            await world.call("ada")
        ended = await asyncio.gather(*tasks[2:], return_exceptions=True)
        assert [type(end) for end in ended] == [Overloaded] * 3
        world.over.set()
        await asyncio.gather(*tasks[:2])
    await world.forgotten()
