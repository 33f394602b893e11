"""What a principal may have: bounds that count what is there, and a rate that fills again."""

from __future__ import annotations

import asyncio

import pytest

from upload_server.access.quotas import Quota, Quotas, Use
from upload_server.domain.errors import QuotaExceeded, RateExceeded


class World:
    """A clock, and what each principal has in the store; ``counted`` says how often that was asked."""

    def __init__(self, quota: Quota, own: dict[str, Quota] | None = None) -> None:
        self.now = 1000.0
        self.uses: dict[str, Use] = {}
        self.counted = 0
        self.quotas = Quotas(quota, self._count, lambda: self.now, (own or {}).get)

    async def _count(self, principal: str) -> Use:
        self.counted += 1
        await asyncio.sleep(0)
        return self.uses.get(principal, Use(0, 0))


async def test_files_are_counted_up_to_the_bound_and_anew_at_it() -> None:
    world = World(Quota(open_files=10))
    for _ in range(10):
        await world.quotas.announce("ann", 1, 5)
    assert world.counted == 1
    world.now += 1
    world.uses["ann"] = Use(10, 50)
    with pytest.raises(QuotaExceeded) as refused:
        await world.quotas.announce("ann", 1, 5)
    assert refused.value.metadata == {"limit": "open-files", "quota": "10", "used": "10"}
    await world.quotas.announce("bob", 10, 5)
    # Some have come to their end: room is there at once, whoever ended them.
    world.now += 1
    world.uses["ann"] = Use(4, 20)
    await world.quotas.announce("ann", 6, 5)


async def test_a_caller_over_the_bound_has_the_store_counted_a_few_times_a_second_at_most() -> None:
    world = World(Quota(open_files=10))
    world.uses["ann"] = Use(10, 50)
    for _ in range(100):
        with pytest.raises(QuotaExceeded):
            await world.quotas.announce("ann", 1, 5)
        world.now += 0.01
    assert world.counted <= 6


async def test_whole_files_take_bytes_and_no_place_among_the_open_ones() -> None:
    world = World(Quota(open_files=1, size_bytes=100))
    world.uses["ann"] = Use(1, 50)
    await world.quotas.announce("ann", 1, 40, whole=True)
    with pytest.raises(QuotaExceeded, match="Your quota of bytes is 100, and you have 90"):
        await world.quotas.announce("ann", 1, 20, whole=True)
    with pytest.raises(QuotaExceeded, match="open-files"):
        await world.quotas.announce("ann", 1, 1)


async def test_what_other_nodes_announce_is_heard_of() -> None:
    world = World(Quota(open_files=10))
    await world.quotas.announce("ann", 1, 5)
    world.uses["ann"] = Use(10, 50)
    world.now += 11
    with pytest.raises(QuotaExceeded):
        await world.quotas.announce("ann", 1, 5)


async def test_of_announcements_at_once_none_is_forgotten() -> None:
    world = World(Quota(open_files=10))
    outcomes = await asyncio.gather(*(world.quotas.announce("ann", 1, 5) for _ in range(20)), return_exceptions=True)
    assert sum(outcome is None for outcome in outcomes) == 10


async def test_streams_are_counted_in_and_out() -> None:
    world = World(Quota(watches=2))
    for name in ("ann", "ann", "bob"):
        world.quotas.enter(name, "watches")
    with pytest.raises(QuotaExceeded):
        world.quotas.enter("ann", "watches")
    world.quotas.enter("ann", "uploads")
    assert await world.quotas.used("ann") == {"watches": (2, 2)}
    world.quotas.leave("ann", "watches")
    world.quotas.enter("ann", "watches")


def test_a_rate_fills_again_and_cancels_have_their_own() -> None:
    world = World(Quota(calls=10))
    for _ in range(20):
        world.quotas.call("ann", cancels=False)
    with pytest.raises(RateExceeded) as refused:
        world.quotas.call("ann", cancels=False)
    assert refused.value.retry_after_seconds == pytest.approx(0.1)
    for _ in range(200):
        world.quotas.call("ann", cancels=True)
    world.quotas.call("bob", cancels=False)
    world.now += 0.11
    world.quotas.call("ann", cancels=False)
    with pytest.raises(RateExceeded):
        world.quotas.call("ann", cancels=False)


async def test_who_has_quotas_of_its_own_is_bound_by_those_alone() -> None:
    own = {"ann": Quota(open_files=3, watches=2, calls=100)}
    world = World(Quota(open_files=1, size_bytes=10, watches=1, calls=10), own)
    await world.quotas.announce("ann", 3, 1000)
    with pytest.raises(QuotaExceeded, match="Your quota of open-files is 3"):
        await world.quotas.announce("ann", 1, 1)
    with pytest.raises(QuotaExceeded, match="Your quota of open-files is 1"):
        await world.quotas.announce("bob", 2, 1)
    for _ in range(2):
        world.quotas.enter("ann", "watches")
    for _ in range(200):
        world.quotas.call("ann", cancels=False)
    with pytest.raises(RateExceeded, match="100 calls a second"):
        world.quotas.call("ann", cancels=False)
    assert await world.quotas.used("ann") == {"watches": (2, 2), "open-files": (3, 3)}
    # They change while it calls.
    own.clear()
    with pytest.raises(QuotaExceeded, match="Your quota of watches is 1, and you have 2"):
        world.quotas.enter("ann", "watches")
