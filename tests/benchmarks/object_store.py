"""Uploads into an object store against obstore's own PUTs, putting together, and resuming elsewhere. Needs Go.

On SeaweedFS, or with ``--on s3-versity`` on versitygw. Options: ``--mib N`` bytes together (1024), ``--rounds N``
repetitions (3; medians are compared), ``--streams N …`` how many at once (1 16), ``--only uploads``, ``assembly`` or
``resume``.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import obstore
import psutil
from obstore.store import S3Store

from benchmarks.grpc_cancel import build_loadgen
from benchmarks.grpc_upload import send
from support import object_store
from support.grpc_upload import CHUNK, UploadCall, stub_on
from support.process import ServerProcess
from upload.v1 import upload_pb2 as pb
from upload.v1 import upload_pb2_grpc
from upload_server.sink.s3.address import parse_address
from upload_server.sink.s3.assembly import Assembly
from upload_server.sink.s3.client import Bucket
from upload_server.sink.s3.file import S3File
from upload_server.sink.s3.names import MIB, piece_of, stretches, whole_key

PIECE = 8 * MIB


@contextlib.contextmanager
def new_bucket(on: str) -> Iterator[object_store.Bucket]:
    """A bucket in a store of its own, of which nothing is left afterwards."""
    store = object_store.KINDS[on]()
    try:
        store.start()
        yield store.new_bucket()
    finally:
        store.stop()


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Return seconds by the clock, and of this process's processor."""
    begun, before = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - begun, time.process_time() - before


def put_plainly(bucket: object_store.Bucket, size: int, streams: int) -> None:
    """Put so many bytes in pieces as ours are, ``streams`` at once, with obstore alone."""
    store = S3Store(
        bucket.name,
        endpoint=bucket.store.endpoint,
        region=object_store.REGION,
        access_key_id=object_store.ACCESS_KEY,
        secret_access_key=object_store.SECRET_KEY,
        checksum_algorithm="sha256",
        client_options={"allow_http": True},
    )
    data = os.urandom(PIECE)

    def stream(number: int) -> None:
        for piece in range(size // streams // PIECE):
            obstore.put(store, f"plain/{number}/{piece}", data, mode="create", use_multipart=False)

    with ThreadPoolExecutor(streams) as pool:
        list(pool.map(stream, range(streams)))


def upload(server: ServerProcess, program: Path, size: int, streams: int) -> tuple[float, float]:
    """Upload so many bytes; returns seconds until the last is durable, and until all files are completed."""
    with grpc.insecure_channel(server.target) as channel:
        stub = upload_pb2_grpc.UploadServiceStub(channel)
        ids = [
            stub.InitiateUpload(pb.InitiateUploadRequest(filename="a", size_bytes=size // streams)).file.file_id
            for _ in range(streams)
        ]
        begun = time.perf_counter()
        with ThreadPoolExecutor(streams) as pool:
            sending = [pool.submit(send, program, server.target, file_id, size // streams, MIB) for file_id in ids]
            # A completed file's bytes were durable before; what lies between is the putting together.
            for file_id in ids:
                while (file := stub.GetFile(pb.GetFileRequest(file_id=file_id))).bytes_received < file.size_bytes:
                    time.sleep(0.02)
            durable = time.perf_counter() - begun
            for one in sending:
                one.result()
        return durable, time.perf_counter() - begun


def compare_uploads(on: str, size: int, rounds: int, streams: int, program: Path) -> None:
    """Measure in turns, on a new store each: what is deleted weighs on one, in memory too."""
    ours: list[tuple[float, float]] = []
    seconds: list[float] = []
    plain: list[tuple[float, float]] = []
    for _ in range(rounds):
        with new_bucket(on) as bucket, tempfile.TemporaryDirectory() as folder:
            options = ["--storage-url", bucket.url()]
            with ServerProcess(Path(folder), options, object_store.environment()) as server:
                before = sum(psutil.Process(server.pid).cpu_times()[:2])
                ours.append(upload(server, program, size, streams))
                seconds.append(sum(psutil.Process(server.pid).cpu_times()[:2]) - before)
        with new_bucket(on) as bucket:
            plain.append(timed(lambda bucket=bucket: put_plainly(bucket, size, streams)))  # type: ignore[misc]
    mib = size / MIB
    durable, whole, by_hand = (statistics.median(x) for x in (*zip(*ours, strict=True), [p[0] for p in plain]))
    cpu = statistics.median(seconds) * 1024 / mib
    own = statistics.median(p[1] for p in plain) * 1024 / mib
    print(f"{streams:2} streams: {mib / durable:4.0f} MiB/s until durable, {cpu:.1f} CPU s a GiB, this service")
    print(f"            {mib / by_hand:4.0f} MiB/s, {own:.1f} CPU s a GiB, obstore's PUTs; {by_hand / durable:.2f}x")
    print(f"            {whole:.1f} s until completed, {whole - durable:.1f} s of it putting together", flush=True)


def copy_plainly(bucket: object_store.Bucket, keys: list[str], target: str) -> None:
    """Put together with boto3 alone, 8 copies at once."""
    client = bucket.client
    upload_id = client.create_multipart_upload(Bucket=bucket.name, Key=target)["UploadId"]

    def copy(number: int) -> dict[str, object]:
        source = {"Bucket": bucket.name, "Key": keys[number - 1]}
        done = client.upload_part_copy(
            Bucket=bucket.name, Key=target, UploadId=upload_id, PartNumber=number, CopySource=source
        )
        return {"PartNumber": number, "ETag": done["CopyPartResult"]["ETag"]}

    with ThreadPoolExecutor(8) as pool:
        parts = list(pool.map(copy, range(1, len(keys) + 1)))
    client.complete_multipart_upload(
        Bucket=bucket.name, Key=target, UploadId=upload_id, MultipartUpload={"Parts": parts}
    )


def compare_assembly(on: str, size: int, rounds: int) -> None:
    """Put the same pieces together in turns."""
    with new_bucket(on) as bucket:
        _compare_assembly(bucket, size, rounds)


def _compare_assembly(theirs: object_store.Bucket, size: int, rounds: int) -> None:
    bucket = Bucket(parse_address(theirs.url()))
    assembly, file_id = Assembly(bucket), str(uuid.uuid4())
    file = S3File(bucket, file_id, 1, size, 0)
    for _ in range(size // PIECE):
        file.append([os.urandom(PIECE)])
        file.sync()
    pieces = [piece for found in bucket.find(f"open/{file_id}") if (piece := piece_of(found.key))]
    found = stretches(pieces, [(1, 0)], size)
    ours: list[tuple[float, float]] = []
    plain: list[tuple[float, float]] = []
    for number in range(rounds):
        target = whole_key(file_id, number)
        ours.append(timed(lambda target=target: assembly.make(target, found, size, lambda: False)))  # type: ignore[misc]
        bucket.delete([target])
        keys = [theirs.key(stretch.piece.key) for stretch in found]
        plain.append(timed(lambda keys=keys, target=target: copy_plainly(theirs, keys, f"plain/{target}")))  # type: ignore[misc]
        theirs.client.delete_object(Bucket=theirs.name, Key=f"plain/{target}")
    assembly.close()
    mine, by_hand = (statistics.median(x[0] for x in side) for side in (ours, plain))
    cpu, own = (statistics.median(x[1] for x in side) for side in (ours, plain))
    print(f"putting together {size // MIB} MiB: {mine:.2f} s, {cpu:.2f} CPU s, this service")
    print(f"            {by_hand:.2f} s, {own:.2f} CPU s, boto3's own copies; {mine / by_hand:.2f}x as long")


async def _send_prefix(target: str, size: int) -> str:
    """Send a file up to its last MiB; returns its id once that is durable."""
    async with grpc.aio.insecure_channel(target) as channel:
        stub = stub_on(channel)
        file_id = (await stub.InitiateUpload(pb.InitiateUploadRequest(filename="a", size_bytes=size))).file.file_id
        async with UploadCall(stub, file_id) as call:
            piece = os.urandom(CHUNK)
            for _ in range((size - MIB) // CHUNK):
                await call.send(piece)
            while (await call.hear_until("progress")).progress.bytes_received < size - MIB:
                pass
    return file_id


async def _resume(target: str, file_id: str, size: int) -> tuple[float, float, float]:
    """Send the rest; returns seconds until the stream is open, its first bytes are durable, the file is completed."""
    async with grpc.aio.insecure_channel(target) as channel:
        stub = stub_on(channel)
        # The connection is there.
        await stub.GetFile(pb.GetFileRequest(file_id=file_id))
        begun = time.perf_counter()
        async with UploadCall(stub, file_id, size - MIB) as call:
            await call.send(bytes(CHUNK))
            await call.hear_until("progress")
            opened = time.perf_counter() - begun
            while (await call.hear_until("progress")).progress.bytes_received < size - MIB + CHUNK:
                pass
            durable = time.perf_counter() - begun
            await call.send_all(bytes(MIB - CHUNK))
            await call.commit()
            while not (await anext(aiter(call.call))).HasField("completed"):
                pass
        return opened, durable, time.perf_counter() - begun


def measure_resume(on: str, size: int) -> None:
    """Resume an upload at a server that has sent nothing of it."""
    with new_bucket(on) as bucket, tempfile.TemporaryDirectory() as folder:
        options = ["--storage-url", bucket.url()]
        with ServerProcess(Path(folder), options, object_store.environment()) as server:
            file_id = asyncio.run(_send_prefix(server.target, size))
        with ServerProcess(Path(folder), options, object_store.environment()) as server:
            opened, durable, whole = asyncio.run(_resume(server.target, file_id, size))
    print(f"resumed elsewhere behind {size // MIB - 1} MiB: {1000 * opened:.0f} ms until the stream is open,")
    print(f"            {durable:.1f} s until its first bytes are durable, {whole:.1f} s until completed", flush=True)


def main() -> None:
    """Measure in turns, and compare medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--on", choices=list(object_store.STORES), default="s3-seaweed")
    parser.add_argument("--only", choices=("uploads", "assembly", "resume"))
    options = parser.parse_args()
    os.environ.update(object_store.environment())
    # Ended in the middle it leaves no store behind, and none of its gigabytes.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with tempfile.TemporaryDirectory() as folder:
        program = build_loadgen(Path(folder))
        for streams in options.streams if options.only in (None, "uploads") else ():
            compare_uploads(options.on, options.mib * MIB, options.rounds, streams, program)
    if options.only in (None, "assembly"):
        compare_assembly(options.on, options.mib * MIB, options.rounds)
    if options.only in (None, "resume"):
        measure_resume(options.on, options.mib * MIB)
