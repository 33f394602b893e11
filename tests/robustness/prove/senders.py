"""Uploads, recorded: through a gRPC stream or a WebSocket, ended by a commit, by leaving, by a break or by closing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import grpc
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from robustness.prove.clients import UNCERTAIN, Connections, content_of, refusal_facts, sha256_of
from robustness.prove.history import Recorder
from robustness.prove.server_system import as_json, refusal_of_call
from robustness.prove.views import micros
from upload.v1 import upload_pb2 as pb

ENDINGS = ("commit", "commit", "commit", "wrong", "leave", "break")
CHUNK = 64 * 1024
# The digest of nothing that anybody sends.
WRONG = "0" * 64


@dataclass(frozen=True)
class Plan:
    """One try to send a file from an offset."""

    stream: str
    file_id: str
    size: int
    offset: int
    ending: str
    # Seconds between chunks at most; the sooner a sender is done the less can happen to it.
    pause: float


def chunks_of(plan: Plan) -> list[bytes]:
    """What is to be sent; a sender that leaves or breaks sends a part of it."""
    data = content_of(plan.file_id, plan.size)[plan.offset :]
    if plan.ending in {"leave", "break", "close", "cancel"}:
        data = data[: random.Random(plan.stream).randint(0, len(data))]
    return [data[start : start + CHUNK] for start in range(0, len(data), CHUNK)]


class Sender:
    """Sends by plans; what it is told goes to the recorder."""

    def __init__(self, name: str, recorder: Recorder, connections: Connections) -> None:
        self.name = name
        self._recorder = recorder
        self._connections = connections

    # gRPC ----------------------------------------------------------------------------------------------------------

    async def grpc(self, plan: Plan) -> None:
        """Send through an UploadFile stream."""
        op_id = self._invoke("open", plan)
        outgoing: asyncio.Queue[pb.UploadFileRequest | None] = asyncio.Queue(2)
        opened: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        call = self._connections.stub.UploadFile(_messages(plan, outgoing))
        state = _Course(self, plan, op_id, opened)
        feeding = asyncio.create_task(state.feed(outgoing, call))
        try:
            async with asyncio.timeout(30):
                async for response in call:
                    state.hear(response)
                code, trailers = await call.code(), dict(await call.trailing_metadata() or ())
            state.end(code, trailers)
        except grpc.aio.AioRpcError as error:
            state.end(error.code(), dict(error.trailing_metadata() or ()))
        except (asyncio.CancelledError, TimeoutError):
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            state.end(grpc.StatusCode.CANCELLED, {})
        finally:
            feeding.cancel()
            call.cancel()
            await asyncio.gather(feeding, return_exceptions=True)
            # What grpcio reads from ends as well.
            while not outgoing.empty():
                outgoing.get_nowait()
            outgoing.put_nowait(None)
            self._note("left", plan)

    # WebSocket -----------------------------------------------------------------------------------------------------

    async def websocket(self, plan: Plan) -> None:
        """Send through a WebSocket; ``close`` closes it, ``break`` cuts it, ``leave`` asks to keep the upload."""
        keep = "&on_disconnect=keep" if plan.ending == "leave" else ""
        url = self._connections.server.url.replace("http", "ws", 1)
        url += f"/api/v1/upload/ws/{plan.file_id}?offset={plan.offset}{keep}"
        state = _SocketCourse(self, plan, self._invoke("open", plan))
        try:
            # Without pings of ours: what a page does is in its plan.
            async with asyncio.timeout(30), connect(url, compression=None, proxy=None, ping_interval=None) as socket:
                hearing = asyncio.create_task(state.hear_all(socket))
                try:
                    await state.send_all(socket)
                    await asyncio.wait({hearing}, timeout=10)
                finally:
                    state.give_up(socket)
                    hearing.cancel()
        except (WebSocketException, OSError, TimeoutError):
            pass
        finally:
            self._note("left", plan)
        state.lost()

    # What is recorded ------------------------------------------------------------------------------------------------

    def _invoke(self, op: str, plan: Plan) -> int:
        return self._recorder.invoke(self.name, op, file_id=plan.file_id, stream=plan.stream)

    def invoke_commit(self, plan: Plan, *, by_last_byte: bool = False) -> int:
        """The sender says that every byte was sent, and with which digest.

        On a WebSocket the last byte says so; a digest behind it that comes too late is ignored, as the contract says.
        """
        wrong = plan.ending == "wrong" and not by_last_byte
        sha256 = WRONG if wrong else sha256_of(plan.file_id, plan.size)
        return self._recorder.invoke(
            self.name, "commit", file_id=plan.file_id, stream=plan.stream, size=plan.size, sha256=sha256
        )

    def invoke_cancel(self, plan: Plan) -> int:
        """The page cancels in so many words."""
        return self._recorder.invoke(
            self.name, "cancel", file_id=plan.file_id, stream=plan.stream, reason=plan.stream, request_id=""
        )

    def invoke_close(self, plan: Plan) -> None:
        """The page leaves; if that cancels, it may be at any time from now on."""
        self._recorder.answered(self.name, self._invoke("close", plan), "unknown")

    def answered(self, op_id: int, outcome: str, **answer: Any) -> None:
        """Record the answer to a call of this sender."""
        self._recorder.answered(self.name, op_id, outcome, **answer)

    def note_told(self, plan: Plan) -> None:
        """Record that the sender hears of the cancel of its file."""
        self._note("told", plan)

    def _note(self, kind: str, plan: Plan) -> None:
        self._recorder.line(self.name, kind, file_id=plan.file_id, stream=plan.stream)

    def note_progress(self, plan: Plan, count: int) -> None:
        """Record how many bytes the server calls durable."""
        self._recorder.line(self.name, "progress", file_id=plan.file_id, count=count)


async def _messages(plan: Plan, outgoing: asyncio.Queue[pb.UploadFileRequest | None]) -> AsyncIterator[Any]:
    yield pb.UploadFileRequest(header=pb.UploadHeader(file_id=plan.file_id, offset=plan.offset))
    while (message := await outgoing.get()) is not None:
        yield message


class _Course:
    """One UploadFile call."""

    def __init__(self, sender: Sender, plan: Plan, op_id: int, opened: asyncio.Future[bool]) -> None:
        self._sender = sender
        self._plan = plan
        self._op_id: int | None = op_id
        self._opened = opened
        self._completed = False

    async def feed(self, outgoing: asyncio.Queue[pb.UploadFileRequest | None], call: Any) -> None:
        """Send; starts when the stream is open, so that opening and committing are two calls in the history."""
        plan = self._plan
        await self._opened
        for chunk in chunks_of(plan):
            await outgoing.put(pb.UploadFileRequest(data=chunk))
            await asyncio.sleep(random.random() * plan.pause)
        if plan.ending == "break":
            call.cancel()
        elif plan.ending == "leave":
            await outgoing.put(None)
        else:
            sha256 = sha256_of(plan.file_id, plan.size) if plan.ending == "commit" else WRONG
            self._op_id = self._sender.invoke_commit(plan)
            await outgoing.put(pb.UploadFileRequest(commit=pb.UploadCommit(sha256=sha256)))

    def hear(self, response: pb.UploadFileResponse) -> None:
        """Take a message of the server."""
        kind = response.WhichOneof("message")
        if kind == "progress":
            if not self._opened.done():
                self._finish("ok")
                self._opened.set_result(True)
            self._sender.note_progress(self._plan, response.progress.bytes_received)
        elif kind == "stopped":
            self._sender.note_told(self._plan)
        elif kind == "completed":
            file = as_json(response.completed)
            self._finish("ok", sha256=file["sha256"])

    def end(self, code: grpc.StatusCode, trailers: dict[str, Any]) -> None:
        """Take the call's status."""
        refused = refusal_of_call(code, trailers)
        if code is grpc.StatusCode.OK or refused.reason.startswith("GRPC_") or refused.reason in UNCERTAIN:
            self._finish("unknown", code=code.name)
        else:
            self._finish("fail", **refusal_facts(refused.reason, refused.facts))

    def _finish(self, outcome: str, **answer: Any) -> None:
        op_id, self._op_id = self._op_id, None
        if op_id is not None:
            self._sender.answered(op_id, outcome, **answer)


class _SocketCourse:
    """One WebSocket."""

    def __init__(self, sender: Sender, plan: Plan, op_id: int) -> None:
        self._sender = sender
        self._plan = plan
        self._op_id: int | None = op_id
        self._opened = asyncio.Event()
        self._ended = False

    async def send_all(self, socket: Any) -> None:
        """Send; the last byte is the commit."""
        plan = self._plan
        await self._opened.wait()
        chunks = chunks_of(plan)
        commits = plan.ending in {"commit", "wrong"}
        with contextlib.suppress(WebSocketException):
            for i, chunk in enumerate(chunks):
                if self._ended:
                    return
                if plan.offset + sum(map(len, chunks[: i + 1])) == plan.size:
                    commits = True
                    self._op_id = self._sender.invoke_commit(plan, by_last_byte=True)
                await socket.send(chunk)
                await asyncio.sleep(random.random() * plan.pause)
            await self._leave(socket, commits=commits)

    async def _leave(self, socket: Any, *, commits: bool) -> None:
        plan = self._plan
        if plan.ending == "cancel" and not commits:
            self._op_id = self._sender.invoke_cancel(plan)
            await socket.send(json.dumps({"type": "cancel", "reason": plan.stream}))
            return
        if commits:
            if self._op_id is None:
                self._op_id = self._sender.invoke_commit(plan, by_last_byte=True)
            sha256 = WRONG if plan.ending == "wrong" else sha256_of(plan.file_id, plan.size)
            await socket.send(json.dumps({"type": "commit", "sha256": sha256}))
            return
        if plan.ending == "close":
            self._sender.invoke_close(plan)
            await socket.close(1000)
        else:
            if plan.ending == "break":
                self._sender.invoke_close(plan)
            socket.transport.abort()

    async def hear_all(self, socket: Any) -> None:
        """Take what the server says."""
        try:
            async for text in socket:
                self._hear(json.loads(text))
        except WebSocketException:
            pass
        finally:
            self._ended = True
            self._opened.set()

    def _hear(self, message: dict[str, Any]) -> None:
        kind = message["type"]
        if kind == "progress":
            if not self._opened.is_set():
                # It may send; the file is its own once it has, of which nobody tells it.
                self._finish("unknown")
                self._opened.set()
            self._sender.note_progress(self._plan, message["bytes_received"])
        elif kind == "success":
            self._finish("ok", sha256=message["file"]["sha256"])
        elif kind == "cancelled":
            self._sender.note_told(self._plan)
            at, by = micros(message["cancelled_at"]), message["cancelled_by"]
            # Our own cancel carries the stream's name as its reason.
            ours = "ok" if message["reason"] == self._plan.stream else "fail"
            self._finish(ours, reason="UPLOAD_CANCELLED", status="cancelled", cancelled_at=at, cancelled_by=by)
        elif kind == "error":
            details = message["error"]["details"]
            info = next(each for each in details if each["@type"].endswith("ErrorInfo"))
            outcome = "unknown" if info["reason"] in UNCERTAIN else "fail"
            self._finish(outcome, **refusal_facts(info["reason"], info.get("metadata", {})))

    def give_up(self, socket: Any) -> None:
        """Cut what the server has not ended; left to itself it would be closed, and a close frame cancels."""
        if not self._ended:
            if self._plan.ending != "leave":
                self._sender.invoke_close(self._plan)
            socket.transport.abort()

    def lost(self) -> None:
        """The socket has ended; what was not answered never will be."""
        self._finish("unknown")

    def _finish(self, outcome: str, **answer: Any) -> None:
        op_id, self._op_id = self._op_id, None
        if op_id is not None:
            self._sender.answered(op_id, outcome, **answer)
