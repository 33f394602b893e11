"""A message that comes late waits for its principal's turn, as a prompt one does, and holds nothing once given up."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from transcoder import BodyBudget
from upload_server.domain.errors import Overloaded
from upload_server.doors.rpc.incoming import Arrivals, Incoming
from upload_server.doors.turns import Turns


class Context:
    """A call whose message comes when the test lets it come."""

    def __init__(self) -> None:
        self.message: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.ended = asyncio.Event()

    async def read(self) -> bytes:
        return await self.message

    async def abort(self, _code: grpc.StatusCode, _details: str = "", _trailing: Any = ()) -> None:
        self.ended.set()


class World:
    """Ada's calls, while somebody else has called, too."""

    def __init__(self, places: int) -> None:
        self.turns = Turns()
        self.turns._latest, self.turns._shared_until = "ada", math.inf
        self.arrivals = Arrivals(20.0, BodyBudget(), places)
        self.decoded: list[bytes] = []

    async def call(self, context: Context) -> None:
        message = Incoming(context, self._decode, self.arrivals)  # type: ignore[arg-type]
        async with self.turns.turn("ada") as turn:
            await message.read(turn)

    async def _decode(self, raw: bytes) -> None:
        self.decoded.append(raw)

    async def late(self) -> tuple[asyncio.Task[None], Context]:
        """Begin a call, and wait until its message is late."""
        context, known = Context(), set(self.arrivals.late)
        task = asyncio.create_task(self.call(context))
        await until(lambda: bool(set(self.arrivals.late) - known))
        return task, context


async def until(holds: Callable[[], bool]) -> None:
    """Wait for what a timer does: nothing tells of it."""
    while not holds():  # noqa: ASYNC110
        await asyncio.sleep(0.005)


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_late_message_is_taken_once_it_is_its_principals_turn_again() -> None:
    world = World(places=8)
    async with asyncio.timeout(30):
        late, context = await world.late()
        # Meanwhile another call of the same principal has the turn.
        async with world.turns.turn("ada"):
            context.message.set_result(b"late")
            await settle()
            assert world.decoded == []
        await late
    assert world.decoded == [b"late"]
    assert world.arrivals.late == {}


async def test_a_late_message_that_waits_for_its_turn_is_given_up_for_a_newer_one_with_its_bytes() -> None:
    world = World(places=1)
    async with asyncio.timeout(30):
        late, context = await world.late()
        newer = Incoming(Context(), world._decode, world.arrivals)  # type: ignore[arg-type]
        async with world.turns.turn("ada"):
            context.message.set_result(b"late")
            await settle()
            (waiting,) = world.arrivals.late
            world.arrivals.wait(newer)
            # Its caller hears of it now, and its bytes are let go; its turn comes when it comes.
            await context.ended.wait()
            assert waiting._raw == b""
            assert not late.done()
        with pytest.raises(Overloaded, match="Too many messages are still coming"):
            await late
    assert world.decoded == []
    assert list(world.arrivals.late) == [newer]
