"""Fills a running service with a believable stream of uploads and cancels, for a bounded time.

``make demo`` beside ``make serve``, then open the page at http://localhost:8080/. What it makes up stays in the
service's data directory like any other upload.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import sys
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

import grpc

from upload.v1 import upload_pb2 as pb
from upload.v1 import upload_pb2_grpc

MIB: Final = 1024 * 1024
CHUNK: Final = 64 * 1024
# Made once: what is in the files is of no interest.
NOISE: Final = os.urandom(CHUNK)
PEOPLE: Final = 7
MOST_SECONDS: Final = 3600.0
CALL_SECONDS: Final = 20.0

SINGLES: Final = (
    ("quarterly report.pdf", "application/pdf"),
    ("holiday film.mov", "video/quicktime"),
    ("contract signed.docx", "application/vnd.openxmlformats-officedocument.wordprocessingml.document"),
    ("backup monday.tar.gz", "application/gzip"),
    ("podcast episode 12.wav", "audio/wav"),
    ("budget.xlsx", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"),
    ("floor plan.dwg", "application/acad"),
    ("Küchenplan.pdf", "application/pdf"),
    ("interview.mp4", "video/mp4"),
)
FOLDERS: Final = (
    ("holiday photos", "IMG_{:04}.jpg"),
    ("invoices", "invoice {:03}.pdf"),
    ("measurements", "run {}.csv"),
)
REASONS: Final = (
    "the wrong file",
    "it takes too long",
    "an older version",
    "sent to the wrong project",
    "not needed any more",
    "",
)


@dataclass
class Demo:
    """The service, when to stop, and what was done."""

    stub: upload_pb2_grpc.UploadServiceAsyncStub
    until: float
    chance: random.Random
    done: Counter[str] = field(default_factory=Counter)

    @property
    def over(self) -> bool:
        """Whether nothing new begins."""
        return time.monotonic() >= self.until

    async def nap(self, low: float, high: float) -> None:
        """Do nothing for a while, never long past the end."""
        await asyncio.sleep(min(self.chance.uniform(low, high), max(0.1, self.until - time.monotonic())))


async def bytes_of(
    demo: Demo, file_id: str, size: int, speed: float, stop_at: float
) -> AsyncIterator[pb.UploadFileRequest]:
    """The messages of an upload at ``speed`` bytes a second; without a commit if it stops before its end."""
    yield pb.UploadFileRequest(header=pb.UploadHeader(file_id=file_id))
    sent, began = 0, time.monotonic()
    while sent < size:
        if sent >= stop_at or demo.over:
            return
        step = min(CHUNK, size - sent)
        yield pb.UploadFileRequest(data=NOISE[:step])
        sent += step
        await asyncio.sleep(max(0.0, began + sent / speed - time.monotonic()))
    yield pb.UploadFileRequest(commit=pb.UploadCommit())


async def send(demo: Demo, file_id: str, size: int, stop_at: float = float("inf")) -> None:
    """Upload a file, or a part of it; a cancel under way is how some of them are meant to end."""
    messages = bytes_of(demo, file_id, size, demo.chance.uniform(1.5, 6) * MIB, stop_at)
    try:
        async for answer in demo.stub.UploadFile(messages):
            if answer.WhichOneof("message") == "completed":
                demo.done["completed"] += 1
    except grpc.aio.AioRpcError as error:
        if error.code() not in {grpc.StatusCode.ABORTED, grpc.StatusCode.INTERNAL, grpc.StatusCode.FAILED_PRECONDITION}:
            raise


async def cancel(demo: Demo, file_id: str) -> None:
    """Cancel a file, maybe too late."""
    reason = demo.chance.choice(REASONS)
    request = pb.CancelFileRequest(file_id=file_id, reason=reason, request_id=str(uuid.uuid4()))
    try:
        await demo.stub.CancelFile(request, timeout=CALL_SECONDS)
        demo.done["cancelled"] += 1
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.FAILED_PRECONDITION:
            raise
        demo.done["too late"] += 1


async def announce(demo: Demo) -> tuple[str, int]:
    """Announce one file; returns its id and size."""
    name, kind = demo.chance.choice(SINGLES)
    size = int(demo.chance.uniform(0.5, 20) * MIB)
    request = pb.InitiateUploadRequest(filename=name, content_type=kind, size_bytes=size, request_id=str(uuid.uuid4()))
    answer = await demo.stub.InitiateUpload(request, timeout=CALL_SECONDS)
    demo.done["announced"] += 1
    return answer.file.file_id, size


async def patient(demo: Demo) -> None:
    """Somebody who uploads a file."""
    await send(demo, *await announce(demo))


async def impatient(demo: Demo) -> None:
    """Somebody who cancels under way."""
    file_id, size = await announce(demo)
    sending = asyncio.create_task(send(demo, file_id, size))
    await demo.nap(0.5, 4)
    await cancel(demo, file_id)
    await sending


async def late(demo: Demo) -> None:
    """Somebody who cancels what is complete already."""
    file_id, size = await announce(demo)
    await send(demo, file_id, size)
    await cancel(demo, file_id)


async def undecided(demo: Demo) -> None:
    """Somebody who announces a file and thinks better of it."""
    file_id, _ = await announce(demo)
    await demo.nap(1, 5)
    await cancel(demo, file_id)


async def folder(demo: Demo) -> None:
    """Somebody who uploads a folder, and cancels all of it half of the time."""
    name, pattern = demo.chance.choice(FOLDERS)
    specs = [
        pb.FileSpec(filename=f"{name}/{pattern.format(number)}", size_bytes=int(demo.chance.uniform(0.2, 4) * MIB))
        for number in range(1, demo.chance.randint(4, 16))
    ]
    request = pb.InitiateBatchRequest(files=specs, request_id=str(uuid.uuid4()))
    answer = await demo.stub.InitiateBatch(request, timeout=CALL_SECONDS)
    demo.done["announced"] += len(specs)
    sizes = dict(zip(answer.file_ids, (spec.size_bytes for spec in specs), strict=True))
    sending = asyncio.create_task(send_all(demo, sizes))
    if demo.chance.random() < 0.5:  # noqa: PLR2004 - a coin
        await demo.nap(1, 6)
        await cancel_batch(demo, answer.batch.batch_id)
    await sending


async def send_all(demo: Demo, sizes: dict[str, int]) -> None:
    """Upload files two at a time."""
    places = asyncio.Semaphore(2)

    async def one(file_id: str, size: int) -> None:
        async with places:
            if not demo.over:
                await send(demo, file_id, size)

    async with asyncio.TaskGroup() as group:
        for file_id, size in sizes.items():
            group.create_task(one(file_id, size))


async def cancel_batch(demo: Demo, batch_id: str) -> None:
    """Cancel a batch, maybe too late."""
    request = pb.CancelBatchRequest(batch_id=batch_id, reason=demo.chance.choice(REASONS), request_id=str(uuid.uuid4()))
    try:
        answer = await demo.stub.CancelBatch(request, timeout=CALL_SECONDS)
        demo.done["cancelled"] += answer.cancelled_files_count
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.FAILED_PRECONDITION:
            raise
        demo.done["too late"] += 1


Habit = Callable[[Demo], Awaitable[None]]
HABITS: Final[tuple[tuple[Habit, int], ...]] = ((patient, 8), (impatient, 7), (late, 1), (undecided, 2), (folder, 3))


async def person(demo: Demo) -> None:
    """One of the people: does one thing after another, with pauses."""
    habits, weights = zip(*HABITS, strict=True)
    await demo.nap(0, 2)
    while not demo.over:
        await demo.chance.choices(habits, weights)[0](demo)
        await demo.nap(0.3, 3)


async def run(target: str, seconds: float, seed: int | None) -> Counter[str]:
    """Play the stream against the service at ``target``; returns what was done."""
    async with grpc.aio.insecure_channel(target) as channel:
        stub = upload_pb2_grpc.UploadServiceStub(channel)
        await stub.ListFiles(pb.ListFilesRequest(page_size=1), timeout=CALL_SECONDS)
        demo = Demo(stub, time.monotonic() + seconds, random.Random(seed))  # noqa: S311 - no secrets here
        with contextlib.suppress(asyncio.CancelledError):
            async with asyncio.TaskGroup() as group:
                for _ in range(PEOPLE):
                    group.create_task(person(demo))
        return demo.done


def words_of(problem: BaseException) -> str:
    """What went wrong first."""
    while isinstance(problem, BaseExceptionGroup):
        problem = problem.exceptions[0]
    return str(problem.details()) if isinstance(problem, grpc.aio.AioRpcError) else str(problem)


def main() -> int:
    """Read the options, play, tell what was done."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", default="localhost:50051", help="gRPC address of the service")
    parser.add_argument("--seconds", type=float, default=90.0, help="how long to go on, at most an hour")
    parser.add_argument("--seed", type=int, help="the same seed plays the same people")
    arguments = parser.parse_args()
    seconds = min(arguments.seconds, MOST_SECONDS)
    sys.stderr.write(
        f"{PEOPLE} people upload and cancel on {arguments.target} for {seconds:g} s: see it on the service's page\n"
    )
    try:
        done = asyncio.run(run(arguments.target, seconds, arguments.seed))
    except KeyboardInterrupt:
        return 130
    except (grpc.aio.AioRpcError, ExceptionGroup) as problem:
        sys.stderr.write(f"The service at {arguments.target} fails ({words_of(problem)}); start it with 'make serve'\n")
        return 1
    sys.stderr.write(", ".join(f"{count} {what}" for what, count in sorted(done.items())) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
