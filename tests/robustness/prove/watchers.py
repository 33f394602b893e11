"""Watchers of all kinds, recorded: gRPC, NDJSON and server-sent events; slow ones; broken off and resumed at random."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
import httpx

from robustness.prove.clients import Connections, batch_facts, file_facts
from robustness.prove.history import Recorder
from robustness.prove.server_system import as_json
from support.doors import Json
from upload.v1 import upload_pb2 as pb
from upload_server.domain.tokens import ResumeToken


@dataclass(frozen=True)
class Request:
    """What is watched."""

    file_ids: tuple[str, ...] = ()
    batch_ids: tuple[str, ...] = ()
    with_files: bool = False
    everything: bool = False
    until_final: bool = False
    progress: bool = field(default=False, compare=False)

    def json(self) -> dict[str, Any]:
        """As the history has it."""
        return {
            "file_ids": list(self.file_ids),
            "batch_ids": list(self.batch_ids),
            "with_files": self.with_files,
            "everything": self.everything,
            "until_final": self.until_final,
        }


def number_of(token: str) -> int:
    """The change number in a resume token; -1 for none."""
    return ResumeToken.decode(token).no if token else -1


def history_of(token: str) -> str:
    """Which history of a store a resume token is of."""
    return ResumeToken.decode(token).incarnation


async def by_grpc(connections: Connections, request: Request, token: str) -> AsyncIterator[Json]:
    """The messages of WatchStatus over gRPC, as proto JSON."""
    message = pb.WatchStatusRequest(
        file_ids=request.file_ids,
        batch_ids=request.batch_ids,
        include_batch_files=request.with_files,
        all=request.everything,
        until_final=request.until_final,
        resume_token=token,
    )
    if request.progress:
        message.progress_interval.FromMilliseconds(100)
    call = connections.stub.WatchStatus(message)
    try:
        async for response in call:
            yield as_json(response)
    finally:
        call.cancel()


def _query(request: Request, token: str) -> httpx.QueryParams:
    query = [("file_ids", each) for each in request.file_ids]
    query += [("batch_ids", each) for each in request.batch_ids]
    flags = {
        "include_batch_files": request.with_files,
        "all": request.everything,
        "until_final": request.until_final,
    }
    query += [(name, "true") for name, value in flags.items() if value]
    if request.progress:
        query.append(("progress_interval", "0.1s"))
    if token:
        query.append(("resume_token", token))
    return httpx.QueryParams(tuple(query))


class WatchRefused(Exception):
    """The stream ended with an error."""


def _nothing_left(response: httpx.Response) -> bool:
    """Whether the watch has ended well without a message; raises when it was refused."""
    if response.status_code not in {200, 204}:
        raise WatchRefused(str(response.status_code))
    return response.status_code == 204


async def by_ndjson(connections: Connections, request: Request, token: str) -> AsyncIterator[Json]:
    """The same as lines of JSON."""
    async with connections.http.stream("GET", "/api/v1/watch", params=_query(request, token)) as response:
        if _nothing_left(response):
            return
        async for line in response.aiter_lines():
            found = json.loads(line)
            if "result" not in found:
                raise WatchRefused(str(found))
            yield found["result"]


async def by_sse(connections: Connections, request: Request, token: str) -> AsyncIterator[Json]:
    """The same as server-sent events; resumed by ``Last-Event-ID``."""
    headers = {"accept": "text/event-stream"} | ({"last-event-id": token} if token else {})
    query = _query(request, "")
    async with connections.http.stream("GET", "/api/v1/watch", params=query, headers=headers) as response:
        if _nothing_left(response):
            return
        event = "message"
        async for line in response.aiter_lines():
            name, _, value = line.partition(":")
            if name == "event":
                event = value.strip()
            elif name == "data" and event == "end":
                if json.loads(value).get("code", 0):
                    raise WatchRefused(value)
                return
            elif name == "data":
                yield json.loads(value)
            elif not line:
                event = "message"
        raise WatchRefused("cut before its end was said")


Door = Callable[[Connections, Request, str], AsyncIterator[Json]]
DOORS: tuple[Door, ...] = (by_grpc, by_ndjson, by_sse)


class Watcher:
    """One watch with its resumptions."""

    def __init__(self, name: str, recorder: Recorder, request: Request, *, seed: str, slow: bool = False) -> None:
        self.name = name
        self.request = request
        self._recorder = recorder
        self._random = random.Random(seed)
        self._slow = slow
        self.token = ""
        self.tokens: list[str] = []
        self.finished = False
        self._histories = 0
        self.heard: list[Json] = []
        self._news = asyncio.Event()

    async def wait_for(self, wanted: Callable[[Json], bool], seconds: float = 5.0) -> bool:
        """Wait for a message, heard or to come; False when none came."""
        try:
            async with asyncio.timeout(seconds):
                while not any(map(wanted, self.heard)):
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            return False
        return True

    async def stay(self, connections: Connections) -> None:
        """Watch one stream over gRPC until cancelled."""
        await self._stream(by_grpc, connections, None)

    async def run(self, connections: Callable[[], Connections]) -> None:
        """Watch, break off, resume, until cancelled or, until_final, done."""
        while not self.finished:
            door = self._random.choice(DOORS)
            try:
                await self._stream(door, connections(), self._random.randint(1, 40))
            except (grpc.aio.AioRpcError, httpx.TransportError, WatchRefused, ValueError):
                # Drained, killed or cut: resumed like any other break.
                await asyncio.sleep(0.05)

    async def catch_up(self, connections: Connections) -> None:
        """Resume once more and read to the first bookmark: at rest it covers everything."""
        if not self.finished:
            async with asyncio.timeout(20):
                await self._stream(by_grpc, connections, None, to_bookmark=True)

    async def _stream(
        self, door: Door, connections: Connections, most: int | None, *, to_bookmark: bool = False
    ) -> None:
        self._recorder.line(
            self.name, "watch", token=number_of(self.token), request=self.request.json(), door=door.__name__
        )
        count = 0
        events = door(connections, self.request, self.token)
        code = "broken"
        try:
            async for message in events:
                self._heard(message)
                count += 1
                if count == most or (to_bookmark and "bookmark" in message):
                    return
                if self._slow and not to_bookmark:
                    await asyncio.sleep(self._random.random() * 0.05)
            code = "OK"
            self.finished = self.request.until_final
        finally:
            self._recorder.line(self.name, "end", code=code)
            await events.aclose()  # type: ignore[attr-defined]

    def _begin_anew(self) -> None:
        """The token was of another history: what follows is a watch of its own, as if nothing had been heard."""
        self._recorder.line(self.name, "end", code="another history")
        before, self._histories = self.name, self._histories + 1
        self.name = f"{before.partition('+')[0]}+{self._histories}"
        self._recorder.line(self.name, "watch", token=-1, request=self.request.json(), door="", after=before)

    def _heard(self, message: Json) -> None:
        if self.token and history_of(self.token) != history_of(message["resume_token"]):
            self._begin_anew()
        self.token = message["resume_token"]
        self.tokens.append(self.token)
        self.heard.append(message)
        self._news.set()
        kind = next(name for name in ("file", "batch", "progress", "bookmark") if name in message)
        body = message[kind]
        view = body
        if kind == "file":
            view = file_facts(body)
        elif kind == "batch":
            view = batch_facts(body)
        target = body.get("batch_id", "") if kind == "batch" else body.get("file_id", "")
        self._recorder.line(self.name, "event", kind=kind, no=number_of(self.token), target=target, view=view)
