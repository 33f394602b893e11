"""A watch through each transport, in one shape: proto JSON messages until the stream ends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Protocol

import grpc
import httpx
from google.protobuf.json_format import MessageToDict, ParseDict

from support.doors import Json, refusal_of_http, refusal_of_json, refusal_of_rpc
from upload.v1 import upload_pb2 as pb

if TYPE_CHECKING:
    from upload.v1.upload_pb2_grpc import UploadServiceAsyncStub as Stub


class WatchTransport(Protocol):
    """A way to watch."""

    def __call__(self, **request: Any) -> AsyncIterator[Json]:
        """Yield messages; raises Refusal; ends when the server ends the stream with OK."""


def grpc_watch(stub: Stub) -> WatchTransport:
    """Watch over gRPC."""

    async def watch(**request: Any) -> AsyncIterator[Json]:
        call = stub.WatchStatus(ParseDict(request, pb.WatchStatusRequest()))
        try:
            async for message in call:
                yield MessageToDict(
                    message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
                )
        except grpc.aio.AioRpcError as error:
            raise refusal_of_rpc(error) from None
        finally:
            call.cancel()

    return watch


def ndjson_watch(client: httpx.AsyncClient) -> WatchTransport:
    """Watch over HTTP, newline-delimited JSON."""

    async def watch(**request: Any) -> AsyncIterator[Json]:
        async with client.stream("GET", "/api/v1/watch", params=request) as response:
            if response.status_code == 204:
                return
            if response.status_code != 200:
                await response.aread()
                raise refusal_of_http(response)
            async for line in response.aiter_lines():
                message = json.loads(line)
                if message.keys() == {"error"}:
                    raise refusal_of_json(message["error"])
                assert message.keys() == {"result"}, message
                yield message["result"]

    return watch


def sse_watch(client: httpx.AsyncClient) -> WatchTransport:
    """Watch over HTTP, server-sent events; every event's id must be its resume token."""

    async def watch(**request: Any) -> AsyncIterator[Json]:
        headers = {"accept": "text/event-stream"}
        if "resume_token" in request:
            headers["last-event-id"] = request.pop("resume_token")
        async with client.stream("GET", "/api/v1/watch", params=request, headers=headers) as response:
            if response.status_code == 204:
                return
            if response.status_code != 200:
                await response.aread()
                raise refusal_of_http(response)
            async for event in sse_events(response):
                message = json.loads(event["data"])
                if event.get("event") == "end":
                    if message["code"]:
                        raise refusal_of_json(message)
                    assert message == {"code": 0, "message": "", "details": []}
                    return
                assert event["id"] == message["resume_token"]
                yield message

    return watch


async def sse_events(response: httpx.Response) -> AsyncIterator[dict[str, str]]:
    """Parse an event stream as the HTML standard says, comments left out."""
    event: dict[str, str] = {}
    async for line in response.aiter_lines():
        if not line:
            if event:
                yield event
            event = {}
        elif not line.startswith(":"):
            name, _, value = line.partition(":")
            event[name] = value.removeprefix(" ")


class Watcher:
    """One watch that a test reads step by step."""

    def __init__(self, stream: AsyncIterator[Json]) -> None:
        self._stream = stream
        self.heard: list[Json] = []

    @property
    def token(self) -> str:
        """The token of the last message."""
        token: str = self.heard[-1]["resume_token"]
        return token

    async def next(self, seconds: float = 60) -> Json | None:
        """Return the next message, None at the end."""
        try:
            message = await asyncio.wait_for(anext(self._stream), seconds)
        except StopAsyncIteration:
            return None
        self.heard.append(message)
        return message

    async def opening(self) -> list[Json]:
        """Return the messages before the first bookmark."""
        messages: list[Json] = []
        while (message := await self.next()) is not None:
            if "bookmark" in message:
                return messages
            messages.append(message)
        raise AssertionError("the stream ended before its bookmark")

    async def until(self, status: str) -> Json:
        """Return the next file or batch in a status, passing over anything else."""
        while (message := await self.next()) is not None:
            for kind in ("file", "batch"):
                if kind in message and message[kind]["status"].endswith(status):
                    found: Json = message[kind]
                    return found
        raise AssertionError(f"the stream ended before anything was {status}")

    async def close(self) -> None:
        """Leave."""
        async with aclosing(self._stream):  # type: ignore[type-var]  # all of them are generators
            pass
