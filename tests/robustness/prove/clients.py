"""Calls on a server that may be slow, wrong or gone: records each with its start, its end and its answer."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import httpx

from robustness.prove.history import Recorder
from robustness.prove.views import BatchView, FileView, micros, of_json
from support.doors import Door, GrpcDoor, HttpDoor, Json, Refusal
from support.process import ServerProcess
from upload.v1 import upload_pb2_grpc

# Reasons after which a change may have been made all the same.
UNCERTAIN = frozenset({"OUTCOME_UNKNOWN", "INTERNAL", ""})


def content_of(file_id: str, size: int) -> bytes:
    """The bytes that whoever sends this file sends."""
    return random.Random(file_id).randbytes(size)


def sha256_of(file_id: str, size: int) -> str:
    """Their digest."""
    return hashlib.sha256(content_of(file_id, size)).hexdigest()


class Connections:
    """One client's connections to one server."""

    def __init__(self, server: ServerProcess, at: str = "") -> None:
        """``at`` is added to the names of those who use them: `@1` at the second of several servers."""
        self.server = server
        self.at = at
        self.channel = grpc.aio.insecure_channel(server.target, options=[("grpc.use_local_subchannel_pool", 1)])
        self.http = httpx.AsyncClient(base_url=server.url, timeout=20)
        self.stub: Any = upload_pb2_grpc.UploadServiceStub(self.channel)
        self.doors: tuple[Door, Door] = (GrpcDoor(self.channel), HttpDoor(self.http))

    async def close(self) -> None:
        """Close them."""
        await self.http.aclose()
        await self.channel.close()


def file_facts(file: Json) -> dict[str, Any]:
    """A file as checkers want it."""
    return dict(vars(of_json(FileView, file)))


def batch_facts(batch: Json) -> dict[str, Any]:
    """A batch as checkers want it."""
    return dict(vars(of_json(BatchView, batch)))


def refusal_facts(reason: str, metadata: dict[str, str]) -> dict[str, Any]:
    """Reason and facts of a refusal, in the types of views."""
    facts: dict[str, Any] = {"reason": reason, **metadata}
    if "revision" in facts:
        facts["revision"] = int(facts["revision"])
    if "cancelled_at" in facts:
        facts["cancelled_at"] = micros(facts["cancelled_at"])
    return facts


class Caller:
    """The unary calls of one client, recorded. Each returns its answer, or None when it was refused or lost."""

    def __init__(self, name: str, recorder: Recorder, door: Door, patience: float = 20.0) -> None:
        """``patience``: seconds after which it gives up waiting; the call may happen all the same."""
        self.name = name
        self._patience = patience
        self._recorder = recorder
        self._door = door
        # Whether the server did not answer the last call at all.
        self.lost = False

    async def initiate(self, size: int, request_id: str = "") -> list[str] | None:
        """Announce a file; returns its id in a list."""
        answer = await self._call(
            "initiate",
            {"size": size, "request_id": request_id},
            lambda: self._door.call("InitiateUpload", filename="a.bin", size_bytes=size, request_id=request_id),
            lambda found: {"file_ids": [found["file"]["file_id"]]},
        )
        return None if answer is None else list(answer["file_ids"])

    async def initiate_batch(self, sizes: list[int], request_id: str = "") -> tuple[str, list[str]] | None:
        """Announce files together."""
        files = [{"filename": f"{i}.bin", "size_bytes": size} for i, size in enumerate(sizes)]
        answer = await self._call(
            "initiate_batch",
            {"sizes": sizes, "request_id": request_id},
            lambda: self._door.call("InitiateBatch", files=files, request_id=request_id),
            lambda found: {"batch_id": found["batch"]["batch_id"], "file_ids": found["file_ids"]},
        )
        return None if answer is None else (str(answer["batch_id"]), list(answer["file_ids"]))

    async def get(self, file_id: str) -> dict[str, Any] | None:
        """Read a file."""
        answer = await self._call(
            "get",
            {"file_id": file_id},
            lambda: self._door.call("GetFile", file_id=file_id),
            lambda found: {"files": [file_facts(found)]},
        )
        return None if answer is None else dict(answer["files"][0])

    async def list_batch(self, batch_id: str) -> list[dict[str, Any]] | None:
        """Read the files of a batch, all in one snapshot."""
        answer = await self._call(
            "list",
            {"batch_id": batch_id},
            lambda: self._door.call("ListFiles", batch_id=batch_id, page_size=1000),
            lambda found: {"files": [file_facts(file) for file in found["files"]]},
        )
        return None if answer is None else list(answer["files"])

    async def get_batch(self, batch_id: str) -> dict[str, Any] | None:
        """Read a batch."""
        return await self._call(
            "get_batch", {"batch_id": batch_id}, lambda: self._door.call("GetBatch", batch_id=batch_id), batch_facts
        )

    async def cancel(self, file_id: str, reason: str = "", request_id: str = "") -> dict[str, Any] | None:
        """Cancel a file."""
        return await self._call(
            "cancel",
            {"file_id": file_id, "reason": reason, "request_id": request_id},
            lambda: self._door.call("CancelFile", file_id=file_id, reason=reason, request_id=request_id),
            lambda found: {**found, "cancelled_at": micros(found["cancelled_at"])},
        )

    async def cancel_batch(self, batch_id: str, reason: str = "", request_id: str = "") -> dict[str, Any] | None:
        """Cancel a batch."""
        return await self._call(
            "cancel_batch",
            {"batch_id": batch_id, "reason": reason, "request_id": request_id},
            lambda: self._door.call("CancelBatch", batch_id=batch_id, reason=reason, request_id=request_id),
            lambda found: {**found, "cancelled_at": micros(found["cancelled_at"])},
        )

    async def _call(
        self,
        op: str,
        args: dict[str, Any],
        ask: Callable[[], Awaitable[Json]],
        facts: Callable[[Json], dict[str, Any]],
    ) -> dict[str, Any] | None:
        recorder, name = self._recorder, self.name
        op_id = recorder.invoke(name, op, **args)
        self.lost = False
        try:
            async with asyncio.timeout(self._patience):
                answer = facts(await ask())
        except Refusal as error:
            outcome = "unknown" if error.reason in UNCERTAIN else "fail"
            recorder.answered(name, op_id, outcome, **refusal_facts(error.reason, error.metadata))
        except (httpx.TransportError, AssertionError, TimeoutError) as error:
            # AssertionError: the helper found no details, as with what grpcio itself says when a connection breaks.
            self.lost = not isinstance(error, TimeoutError)
            recorder.answered(name, op_id, "unknown", error=repr(error)[:200])
        else:
            recorder.answered(name, op_id, "ok", **answer)
            return answer
        return None
