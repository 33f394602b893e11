"""An installation that has lived: files and batches in every state, made through the ports; and its tools."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
from contextlib import AbstractContextManager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from support.doors import Refusal
from support.grpc_upload import UploadCall, stub_on, upload
from support.process import ServerProcess
from support.stores import shell, url_in
from upload.v1 import upload_pb2 as pb
from upload_server.__main__ import main

DATA = b"some bytes that are kept" * 1000


@dataclass(frozen=True)
class Lived:
    """Ids of what was made."""

    completed: str
    # Of the same content, in a batch of its own.
    batch_completed: str
    in_batch: str
    uploading: str
    pending: str
    cancelled: str
    failed: str
    batch_cancelled: str
    batch_open: str
    in_open_batch: str
    # Completed, and its content deleted.
    let_go: str


# For what lives nowhere yet.
NOBODY = Lived(*[""] * 11)


async def live(server: ServerProcess) -> Lived:
    """Fill a server with files and batches in every state."""
    async with grpc.aio.insecure_channel(server.target) as channel:
        stub = stub_on(channel)

        async def announce(name: str, sha256: str = "") -> str:
            request = pb.InitiateUploadRequest(
                filename=name, size_bytes=len(DATA), sha256=sha256, request_id=f"announce {name}"
            )
            return (await stub.InitiateUpload(request)).file.file_id

        async def batch(name: str, files: int) -> tuple[str, list[str]]:
            specs = [pb.FileSpec(filename=f"{name}/{index}", size_bytes=len(DATA)) for index in range(files)]
            made = await stub.InitiateBatch(pb.InitiateBatchRequest(files=specs, request_id=f"announce {name}"))
            return made.batch.batch_id, list(made.file_ids)

        completed = await announce("completed")
        await upload(stub, completed, DATA)
        batch_completed, (in_batch,) = await batch("done", 1)
        await upload(stub, in_batch, DATA)
        uploading = await announce("uploading")
        async with UploadCall(stub, uploading) as call:
            await call.send(DATA[:5000])
            await call.half_close()
            assert await call.hear() is not None
            while await call.hear() is not None:
                pass
        cancelled = await announce("cancelled")
        async with UploadCall(stub, cancelled) as call:
            await call.send(DATA[:5000])
            await call.hear_until("progress")
            await stub.CancelFile(pb.CancelFileRequest(file_id=cancelled, reason="why not", request_id="cancel it"))
            await call.hear_until("stopped")
        failed = await announce("failed", hashlib.sha256(b"other").hexdigest())
        try:
            await upload(stub, failed, DATA)
        except Refusal as refusal:
            assert refusal.reason == "CHECKSUM_MISMATCH"  # noqa: PT017 - it must not only be raised
        batch_cancelled, _ = await batch("cancelled", 3)
        await stub.CancelBatch(pb.CancelBatchRequest(batch_id=batch_cancelled, reason="all", request_id="cancel all"))
        batch_open, (in_open_batch, _) = await batch("open", 2)
        await upload(stub, in_open_batch, DATA)
        let_go = await announce("let go")
        await upload(stub, let_go, DATA)
        await stub.DeleteContent(pb.DeleteContentRequest(file_id=let_go, reason="consumed", request_id="let go of it"))
        pending = await announce("pending")
    return Lived(
        completed,
        batch_completed,
        in_batch,
        uploading,
        pending,
        cancelled,
        failed,
        batch_cancelled,
        batch_open,
        in_open_batch,
        let_go,
    )


@dataclass(frozen=True)
class Ran:
    """What a command came to."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def kinds(self) -> list[str]:
        """Kinds of findings that are left."""
        return sorted(finding["kind"] for finding in self.json["findings"] if not finding["mended"])


class Installation:
    """A data directory, to be damaged and looked at."""

    def __init__(self, folder: Path, lived: Lived) -> None:
        self.folder = folder
        self.ids = lived

    @property
    def url(self) -> str:
        return url_in(self.folder)

    @property
    def database(self) -> Path:
        return self.folder / "upload.sqlite3"

    def bytes_of(self, file_id: str, fence: int | None = None) -> Path:
        """Where bytes of a file lie, or are to: those of a run, or whatever lies there."""
        folder = self.folder / "bytes" / file_id[:2]
        if fence is not None:
            return folder / f"{file_id}.{fence}"
        return next(folder.glob(f"{file_id}*"), folder / file_id)

    def run(self, *words: str) -> Ran:
        """Run a command of the program in this process."""
        out, err = io.TextIOWrapper(io.BytesIO(), "utf-8", newline=""), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            code = main([*words, "--data-dir", str(self.folder)])
        out.seek(0)
        return Ran(code, out.read(), err.getvalue())

    def run_program(self, *words: str) -> Ran:
        """Run the program itself."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith("UPLOAD_")}
        command = [sys.executable, "-m", "upload_server", *words, "--data-dir", str(self.folder)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=clean)
        return Ran(done.returncode, done.stdout, done.stderr)

    def by_hand(self, *, triggers: bool = False) -> AbstractContextManager[Any]:
        """Change the database as somebody with its shell would, past its triggers."""
        return shell(self.url, triggers=triggers)

    def rows(self, sql: str, *parameters: object) -> list[Any]:
        with shell(self.url) as hand:
            found: list[Any] = hand.execute(sql, parameters).fetchall()
        return found
