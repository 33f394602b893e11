"""What surrounds every call: it is admitted, ended with an error that says why, counted once, and leaves last."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from grpc._cython import cygrpc  # type: ignore[attr-defined]  # two of its errors have no public name

from upload.v1 import upload_pb2 as pb
from upload_server.domain.caller import Caller
from upload_server.domain.errors import (
    CredentialLost,
    DatabaseFailure,
    FileNotFound,
    InternalError,
    OutcomeUnknown,
    Overloaded,
    ShuttingDown,
    UploadError,
)
from upload_server.domain.observer import Observer
from upload_server.domain.states import Source
from upload_server.doors import turns
from upload_server.doors.admission import Admission, Gate
from upload_server.doors.calls import Call, Calls, unary


class Counted(Observer):
    """The codes of the calls that ended."""

    def __init__(self) -> None:
        self.codes: list[str] = []

    def call_finished(
        self, method: str, door: str, code: str, seconds: float, trace: Mapping[str, str] | None = None
    ) -> None:
        assert (method, door, trace) == ("UploadFile", "tus", None)
        assert seconds >= 0
        self.codes.append(code)


class World:
    """One door with two places at each gate, and what its callers are told."""

    def __init__(self) -> None:
        self.admission = Admission(dict.fromkeys(Gate, 2))
        self.counted = Counted()
        self.calls = Calls(Source.TUS, self.admission, self.counted, timeout=0.1)
        self.told: list[UploadError] = []

    def call(self) -> Call:
        return Call(self.calls, "UploadFile", self.tell, None)

    async def tell(self, error: UploadError) -> None:
        self.told.append(error)

    async def run(self, gate: Gate, error: BaseException | None = None) -> UploadError | None:
        """One call; returns what its caller is told."""
        self.told.clear()
        async with self.call() as call:
            await call.admit(gate)
            if error is not None:
                raise error
        return self.told[0] if self.told else None


@pytest.fixture
def world() -> World:
    return World()


async def test_each_error_is_told_and_counted_once(world: World) -> None:
    assert await world.run(Gate.READ) is None
    assert isinstance(await world.run(Gate.READ, FileNotFound("f")), FileNotFound)
    assert isinstance(await world.run(Gate.READ, TimeoutError()), DatabaseFailure)
    assert isinstance(await world.run(Gate.CANCEL, TimeoutError()), OutcomeUnknown)
    internal = await world.run(Gate.CANCEL, ValueError("secret"))
    assert isinstance(internal, InternalError)
    assert "secret" not in str(internal)
    with pytest.raises(asyncio.CancelledError):
        await world.run(Gate.CANCEL, asyncio.CancelledError())
    assert world.told == []
    assert world.counted.codes == ["OK", "NOT_FOUND", "INTERNAL", "INTERNAL", "INTERNAL", "CANCELLED"]
    world.admission.close()
    await world.admission.wait_empty()


@pytest.mark.parametrize("lost", [grpc.aio.InternalError(), cygrpc.ExecuteBatchError(), cygrpc._ServerStoppedError()])
async def test_a_write_that_grpc_could_not_do_means_that_the_caller_left(world: World, lost: Exception) -> None:
    with pytest.raises(asyncio.CancelledError):
        await world.run(Gate.WATCH, lost)
    assert world.told == []
    # A mistake of ours is none of the caller's doing.
    assert isinstance(await world.run(Gate.WATCH, grpc.aio.UsageError()), InternalError)
    assert world.counted.codes == ["CANCELLED", "INTERNAL"]


async def test_who_left_before_a_refusal_was_told_makes_no_error(world: World) -> None:
    async def tell(_error: UploadError) -> None:
        raise cygrpc.ExecuteBatchError

    async def refused() -> None:
        async with Call(world.calls, "UploadFile", tell, None) as call:
            await call.admit(Gate.READ)
            raise FileNotFound("f")

    with pytest.raises(asyncio.CancelledError):
        await refused()
    world.admission.close()
    await world.admission.wait_empty()
    assert world.counted.codes == ["NOT_FOUND"]


async def test_what_takes_too_long_is_ended(world: World) -> None:
    async with world.call() as call:
        await call.admit(Gate.CHANGE)
        with world.calls.limit():
            await asyncio.Event().wait()
    assert [type(error) for error in world.told] == [OutcomeUnknown]


@pytest.mark.parametrize(("gate", "seconds"), [(Gate.CANCEL, 1), (Gate.WEBSOCKET, 5)])
async def test_the_call_beyond_the_bound_is_told_when_to_come_back(world: World, gate: Gate, seconds: float) -> None:
    async with world.call() as first, world.call() as second:
        assert await first.admit(gate) == await second.admit(gate)
        refusal = await world.run(gate)
        assert isinstance(refusal, Overloaded)
        assert refusal.retry_after_seconds == seconds
        # Every gate has its own places.
        assert await world.run(Gate.READ) is None
    assert await world.run(gate) is None
    assert world.counted.codes == ["RESOURCE_EXHAUSTED", "OK", "OK", "OK", "OK"]


async def test_a_call_that_goes_on_through_the_next_gate_leaves_the_first(world: World) -> None:
    async with world.call() as one, world.call() as two, world.call() as three:
        for call in (one, two):
            await call.admit(Gate.CHANGE)
            await call.admit(Gate.UPLOAD)
        await three.admit(Gate.CHANGE)
        with pytest.raises(Overloaded):
            await three.admit(Gate.UPLOAD)
        # Refused there it still is where it was.
        assert await world.run(Gate.CHANGE) is None
        async with world.call() as other:
            await other.admit(Gate.CHANGE)
            assert isinstance(await world.run(Gate.CHANGE), Overloaded)
    world.admission.close()
    await world.admission.wait_empty()


async def test_a_drain_waits_until_the_last_call_has_told_its_error_but_not_for_watches(world: World) -> None:
    telling, go_on = asyncio.Event(), asyncio.Event()

    async def tell(error: UploadError) -> None:
        assert isinstance(error, FileNotFound)
        telling.set()
        await go_on.wait()

    async def slow() -> None:
        async with Call(world.calls, "UploadFile", tell, None) as call:
            await call.admit(Gate.UPLOAD)
            raise FileNotFound("f")

    async with world.call() as watch:
        await watch.admit(Gate.WATCH)
        running = asyncio.create_task(slow())
        await telling.wait()
        world.admission.close()
        idle = asyncio.create_task(world.admission.wait_idle())
        assert isinstance(await world.run(Gate.CANCEL), ShuttingDown)
        assert not idle.done()
        go_on.set()
        await asyncio.gather(idle, running)
        empty = asyncio.create_task(world.admission.wait_empty())
        await asyncio.sleep(0)
        assert not empty.done()
    await empty


async def test_what_waits_for_a_drain_does_not_wait_once_it_has_begun(world: World) -> None:
    world.admission.close()
    async with asyncio.timeout(30):
        async with world.admission.until_closed():
            await asyncio.Event().wait()


class Servicer:
    """Two methods that go on until they are let go."""

    def __init__(self, calls: Calls) -> None:
        self.calls = calls
        self.inside: Counter[str] = Counter()
        self.done = asyncio.Semaphore(0)

    @unary(Gate.READ)
    async def look(self, _request: pb.File, _caller: Caller) -> pb.File:
        return await self._be_at("look")

    @unary(Gate.CANCEL)
    async def cancel(self, _request: pb.File, _caller: Caller) -> pb.File:
        return await self._be_at("cancel")

    async def _be_at(self, method: str) -> pb.File:
        self.inside[method] += 1
        await self.done.acquire()
        return pb.File()


async def _settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_the_calls_of_one_principal_take_turns_a_cancel_before_those_that_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(turns, "_LONGEST_SECONDS", 60.0)
    admission = Admission(dict.fromkeys(Gate, 10))
    calls = Calls(Source.GRPC, admission, Observer(), timeout=20)
    context: Any = SimpleNamespace(abort=None, add_done_callback=lambda _: None)
    servicer = Servicer(calls)
    # Somebody else has called.
    async with admission.turns.turn("bob"):
        pass
    calls.anybody = Caller(Source.GRPC, principal="ada")
    looking = [asyncio.ensure_future(servicer.look(pb.File(), context)) for _ in range(5)]
    await _settle()
    assert servicer.inside["look"] == 1
    cancelling = asyncio.ensure_future(servicer.cancel(pb.File(), context))
    await _settle()
    assert servicer.inside["cancel"] == 0
    async with asyncio.timeout(30):
        servicer.done.release()
        while not servicer.inside["cancel"]:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.001)
        assert servicer.inside["look"] == 1
        for _ in range(5):
            servicer.done.release()
        await asyncio.gather(*looking, cancelling)


async def test_a_block_whose_caller_may_not_go_on_is_ended_once_however_long_its_end_takes(world: World) -> None:
    caller = Caller(Source.TUS, principal="ada", credential="token:t")
    ending, over = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        async with world.admission.while_valid(caller):
            try:
                await asyncio.Event().wait()
            finally:
                ending.set()
                await over.wait()

    held = asyncio.create_task(hold())
    await _settle()
    async with asyncio.timeout(30):
        world.admission.end_where(lambda one: CredentialLost(one.credential))
        await ending.wait()
        world.admission.end_where(lambda one: CredentialLost(one.credential))
        over.set()
        with pytest.raises(CredentialLost):
            await held
