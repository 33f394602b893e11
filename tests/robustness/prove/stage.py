"""A server, one of everybody, and a history of what they do: calls come one by one, in the order of a scenario."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import grpc

from robustness.prove.clients import Caller, Connections, content_of, refusal_facts, sha256_of
from robustness.prove.history import History, Recorder, parse
from robustness.prove.senders import WRONG, Plan, Sender
from robustness.prove.tables import Seen, all_heard, read_tables
from robustness.prove.watchers import Request, Watcher
from support.doors import Json, Refusal
from support.grpc_upload import UploadCall
from support.process import ServerProcess


@dataclass(frozen=True)
class Patience:
    """How long is waited, in seconds, for what has to come soon; a bug may keep it from coming at all."""

    # For deletions that are owed.
    rest: float = 20.0
    # For the bookmark of a resumed watch.
    bookmark: float = 20.0
    # For the message that tells a sender of its file's cancel.
    stop: float = 20.0


# With a bug: it does not matter that a slow machine may look like one.
SHORT = Patience(1.5, 1.5, 2.0)


class OpenStream:
    """An UploadFile stream of a scenario."""

    def __init__(self, stage: Stage, call: UploadCall, name: str, file_id: str, size: int, offset: int) -> None:
        self._stage = stage
        self._call = call
        self.name = name
        self.file_id = file_id
        self._size = size
        self._sent = offset

    async def send(self, upto: int) -> None:
        """Send the file's bytes up to an offset."""
        data = content_of(self.file_id, self._size)[self._sent : upto]
        for start in range(0, len(data), 64 * 1024):
            await self._call.send(data[start : start + 64 * 1024])
        self._sent = upto

    async def hear_durable(self, count: int) -> None:
        """Wait until so many bytes are called durable."""
        while (await self._call.hear_until("progress")).progress.bytes_received < count:
            pass
        self._stage.recorder.line(self.name, "progress", file_id=self.file_id, count=count)

    async def hear_stop(self) -> None:
        """The sender is to hear that its file was cancelled, now."""
        op_id = self._stage.recorder.invoke(self.name, "hear_stop", file_id=self.file_id, stream=self.name)
        try:
            async with asyncio.timeout(self._stage.patience.stop):
                await self._call.hear_until("stopped")
        except (TimeoutError, AssertionError, Refusal) as error:
            self._stage.recorder.answered(self.name, op_id, "unknown", error=repr(error))
        else:
            self._stage.recorder.answered(self.name, op_id, "ok")

    async def leave(self) -> None:
        """End the stream without a commit; whatever it is told."""
        await self._call.half_close()
        try:
            while await self._call.hear() is not None:
                pass
        except Refusal:
            pass
        self.note_left()

    def note_left(self) -> None:
        """Record that the stream is over."""
        self._stage.recorder.line(self.name, "left", file_id=self.file_id, stream=self.name)

    async def hear_end(self) -> None:
        """The sender is to hear that another one has taken its file over, now."""
        op_id = self._stage.recorder.invoke(self.name, "hear_end", file_id=self.file_id, stream=self.name)
        outcome = "unknown"
        with contextlib.suppress(TimeoutError, AssertionError):
            async with asyncio.timeout(self._stage.patience.stop):
                outcome = "ok" if await self._refusal() is not None else "unknown"
        self._stage.recorder.answered(self.name, op_id, outcome)

    async def commit(self, *, wrong: bool = False) -> None:
        """Commit what was sent."""
        sha256 = WRONG if wrong else sha256_of(self.file_id, self._size)
        recorder = self._stage.recorder
        op_id = recorder.invoke(
            self.name, "commit", file_id=self.file_id, stream=self.name, size=self._size, sha256=sha256
        )
        await self._call.commit(sha256)
        try:
            completed = (await self._call.hear_until("completed")).completed
        except Refusal as error:
            recorder.answered(self.name, op_id, "fail", **refusal_facts(error.reason, error.metadata))
        except AssertionError as error:
            # Stopped first: the refusal follows.
            found = await self._refusal()
            facts = refusal_facts(found.reason, found.metadata) if found else {"error": repr(error)}
            recorder.answered(self.name, op_id, "fail" if found else "unknown", **facts)
        else:
            recorder.answered(self.name, op_id, "ok", sha256=completed.sha256)

    async def _refusal(self) -> Refusal | None:
        try:
            while await self._call.hear() is not None:
                pass
        except (Refusal, AssertionError) as error:
            return error if isinstance(error, Refusal) else None
        return None


class Stage:
    """``async with`` it, act, then ask for its ``history``."""

    def __init__(self, start: Callable[[], ServerProcess], patience: Patience) -> None:
        self.recorder = Recorder()
        self.patience = patience
        self._start = start
        self._streams = 0
        self._calls: list[UploadCall] = []
        self._open: list[OpenStream] = []
        self._watching: list[asyncio.Task[None]] = []
        self.watchers: list[Watcher] = []

    async def __aenter__(self) -> Self:
        await self._begin()
        return self

    async def _begin(self) -> None:
        self.server = await asyncio.to_thread(self._start)
        self.connections = Connections(self.server)
        self.caller = Caller("caller", self.recorder, self.connections.doors[0])
        self.http = Caller("caller by http", self.recorder, self.connections.doors[1])

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._end()
        await asyncio.to_thread(self.server.kill)

    async def _end(self) -> None:
        for stream in self._open:
            stream.note_left()
        self._open.clear()
        for call in self._calls:
            call.call.cancel()
            # What feeds the call ends as well.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(call.half_close(), 0.1)
        for task in self._watching:
            task.cancel()
        await asyncio.gather(*self._watching, return_exceptions=True)
        self._calls.clear()
        self._watching.clear()
        await self.connections.close()

    async def restart(self, *, kill: bool = False) -> None:
        """Stop or kill the server and start it on the same data."""
        if kill:
            await asyncio.to_thread(self.server.kill)
            await self._end()
        else:
            await self._end()
            await asyncio.to_thread(self.server.terminate)
        await self._begin()

    async def file(self, size: int) -> str:
        """Announce a file."""
        made = await self.caller.initiate(size)
        assert made
        return made[0]

    async def open(self, file_id: str, size: int, offset: int = 0) -> OpenStream | None:
        """Open a stream; None when it is refused."""
        self._streams += 1
        name = f"s{self._streams}"
        call = await UploadCall(self.connections.stub, file_id, offset).__aenter__()
        self._calls.append(call)
        who = name + self.connections.at
        op_id = self.recorder.invoke(who, "open", file_id=file_id, stream=name)
        try:
            await call.hear_until("progress")
        except Refusal as error:
            self.recorder.answered(who, op_id, "fail", **refusal_facts(error.reason, error.metadata))
            return None
        self.recorder.answered(who, op_id, "ok")
        self._open.append(OpenStream(self, call, name, file_id, size, offset))
        return self._open[-1]

    async def upload(self, file_id: str, size: int, *, wrong: bool = False) -> None:
        """Send a whole file and commit it."""
        stream = await self.open(file_id, size)
        if stream is not None:
            await stream.send(size)
            await stream.commit(wrong=wrong)

    async def socket(self, file_id: str, size: int, ending: str) -> str:
        """Send through a WebSocket that ends so; returns the stream's name."""
        self._streams += 1
        plan = Plan(f"s{self._streams}", file_id, size, 0, ending, 0.0)
        await Sender(plan.stream, self.recorder, self.connections).websocket(plan)
        return plan.stream

    async def watch(self, request: Request) -> Watcher:
        """Watch live from now on."""
        watcher = Watcher(f"watcher{len(self.watchers)}", self.recorder, request, seed="")
        self.watchers.append(watcher)
        self._watching.append(asyncio.create_task(watcher.stay(self.connections)))
        assert await watcher.wait_for(lambda message: "bookmark" in message, 20.0)
        return watcher

    async def wait_all_watchers(self) -> None:
        """Announce a file; wait until every watcher of everything has it, and so every change before."""
        last = await self.file(0)
        for watcher in self.watchers:
            if watcher.request.everything:
                await watcher.wait_for(lambda message: _names(message, last))

    async def history(self) -> History:
        """Let everything come to rest, resume every watch and every token, and read everything."""

        async def listen() -> None:
            await self._end()
            self._connect_again()
            for watcher in self.watchers:
                await self._quietly(watcher)
            for i, watcher in enumerate(self.watchers):
                for k, token in enumerate(dict.fromkeys(watcher.tokens)):
                    probe = Watcher(f"probe{i}.{k}", self.recorder, watcher.request, seed="")
                    probe.token = token
                    await self._quietly(probe)

        tables = await all_heard(self.recorder, self._look, self.patience.rest, listen)
        self.recorder.line("stage", "tables", **tables)
        return parse(self.recorder.lines)

    def _connect_again(self) -> None:
        """Have whoever is resumed begin with connections of its own."""
        self.connections = Connections(self.server)

    def _look(self) -> Seen:
        """Read how everything was left."""
        return read_tables(self.server.data_dir)

    async def _quietly(self, watcher: Watcher) -> None:
        """A watch that is refused, or never gets its bookmark, is the checkers' business."""
        with contextlib.suppress(TimeoutError, grpc.aio.AioRpcError):
            async with asyncio.timeout(self.patience.bookmark):
                await watcher.catch_up(self.connections)


def _names(message: Json, file_id: str) -> bool:
    return bool(message.get("file", {}).get("file_id") == file_id)
