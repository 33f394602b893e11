"""Decides how streams are written to gRPC: bytes that all watchers of a change share, one write at a time.

Must not know what is watched or read. A write costs grpcio some 25 µs, and a task that waits for it as much again:
while a watch rests, its changes are written without waking its task.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import aclosing
from typing import Any, Final, Generic, TypeVar

from transcoder.timers import Limit, Timers
from upload_server.domain.errors import Overloaded, UploadError
from upload_server.doors.admission import Gate
from upload_server.doors.calls import Call
from upload_server.doors.rpc.incoming import Incoming
from upload_server.doors.rpc.servicer import UploadServicer

# What is written: events of a watch, messages of a download.
E = TypeVar("E")

# A caller that takes nothing for this long has left without saying so; its stream can be resumed.
_WRITE_SECONDS: Final = 60.0


class GrpcOutlet(Generic[E]):
    """The writes of one call. Each is begun by hand and ended by grpcio's callback: no task waits for it."""

    __slots__ = ("_context", "_failure", "_in_time", "_serialise", "_waiter", "_write")

    def __init__(self, context: Any, timers: Timers, serialise: Callable[[E], bytes]) -> None:
        self._context = context
        self._serialise = serialise
        self._in_time = Limit(timers, _WRITE_SECONDS)
        # The write that is not taken yet, who waits for it, and why no further one can succeed.
        self._write: Coroutine[Any, Any, None] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._failure: BaseException | None = None

    @property
    def free(self) -> bool:
        """Whether the last write has been taken, and none has failed."""
        return self._write is None and self._failure is None

    def send(self, event: E) -> None:
        """Begin to write; a failure is raised by ``taken``. Only while the call's handler runs."""
        write: Coroutine[Any, Any, None] = self._context.write(self._serialise(event))
        try:
            # A write waits once, for the future that grpcio sets when the stream has taken it.
            taken: asyncio.Future[None] = write.send(None)
        except Exception as error:  # noqa: BLE001 - of whatever kind: the call's task raises it
            self._failure = error
        else:
            self._write = write
            taken.add_done_callback(self._end)

    async def taken(self) -> None:
        """Wait until the last write is taken; raises why it failed, ``Overloaded`` when it takes too long."""
        if self._write is not None and self._failure is None:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                with self._in_time:
                    await self._waiter
            except TimeoutError:
                # A stream with a write in it cannot go on; the token makes that harmless.
                self._failure = Overloaded(f"The caller took nothing for {_WRITE_SECONDS:g} s", 1.0)
        if self._failure is not None:
            raise self._failure

    def _end(self, _taken: object) -> None:
        write, self._write = self._write, None
        assert write is not None  # noqa: S101 - for the type checker
        try:
            # Lets grpcio free what it keeps of the write.
            write.send(None)
        except StopIteration:
            pass
        except BaseException as error:  # noqa: BLE001 - as above
            self._failure = error
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def watch_handler(servicer: UploadServicer, incoming: Callable[[Any], Incoming]) -> Callable[..., Any]:
    """Return the handler of WatchStatus."""
    timers = Timers(tick=1.0)

    async def handler(_messages: object, context: Any) -> None:
        unread = incoming(context)
        async with (
            Call(servicer.calls, "WatchStatus", unread.tell, context) as call,
            call.turn(await call.identify()) as turn,
        ):
            caller = await call.admit(Gate.WATCH)
            request = await unread.read()
            unread.leave()
            outlet = GrpcOutlet(context, timers, servicer.watch_bytes)
            async with aclosing(servicer.watch(request, caller, outlet)) as events:
                try:
                    async for event in events:
                        # The store was read; what follows may take for ever.
                        turn.give()
                        await outlet.taken()
                        outlet.send(event)
                        await outlet.taken()
                except UploadError:
                    await outlet.taken()  # in order, also what went out while the stream rested
                    raise
            await outlet.taken()

    return handler


def download_handler(servicer: UploadServicer, incoming: Callable[[Any], Incoming]) -> Callable[..., Any]:
    """Return the handler of DownloadFile: a thread fetches the next block while one is written."""
    timers = Timers(tick=1.0)

    async def handler(_messages: object, context: Any) -> None:
        unread = incoming(context)
        async with Call(servicer.calls, "DownloadFile", unread.tell, context) as call:
            caller = await call.admit(Gate.DOWNLOAD)
            request = await unread.read()
            unread.leave()
            outlet = GrpcOutlet(context, timers, bytes)
            async with servicer.calls.admission.while_valid(caller):
                async with aclosing(servicer.download(request, caller)) as messages:
                    async for message in messages:
                        await outlet.taken()
                        outlet.send(message)
                await outlet.taken()

    return handler
