"""How pieces become one object, on object stores that really run."""

from __future__ import annotations

import os
import random
import uuid
from collections.abc import Iterator

import pytest

from support import object_store
from upload_server.sink.protocol import BytesMissing, SinkError
from upload_server.sink.s3.address import parse_address
from upload_server.sink.s3.assembly import Assembly
from upload_server.sink.s3.client import Bucket
from upload_server.sink.s3.file import S3File
from upload_server.sink.s3.names import MIB, Stretch, piece_of, stretches, whole_key


@pytest.fixture
def bucket(theirs: object_store.Bucket) -> Bucket:
    return Bucket(parse_address(theirs.url()))


@pytest.fixture
def assembly(bucket: Bucket) -> Iterator[Assembly]:
    made = Assembly(bucket)
    yield made
    made.close()


@pytest.fixture
def file_id() -> str:
    return str(uuid.uuid4())


def never() -> bool:
    return False


def write(bucket: Bucket, file_id: str, fence: int, data: bytes, offset: int, size: int, steps: list[int]) -> None:
    """Send ``data`` from ``offset`` on, synced after each of so many bytes."""
    file = S3File(bucket, file_id, fence, size, offset)
    begins = 0
    for step in [*steps, len(data)]:
        file.append([memoryview(data)[begins : begins + step]])
        file.sync()
        begins += step
    file.close()


def lying(bucket: Bucket, file_id: str, runs: list[tuple[int, int]], size: int) -> list[Stretch]:
    pieces = [piece for found in bucket.find(f"open/{file_id}") if (piece := piece_of(found.key))]
    return stretches(pieces, runs, size)


def whole(theirs: object_store.Bucket, file_id: str, fence: int) -> bytes:
    return theirs.read(f"up/loads/{whole_key(file_id, fence)}")


@pytest.mark.parametrize("size", [0, 1, 8 * MIB, 8 * MIB + 1, 21 * MIB + 5])
def test_one_run(bucket: Bucket, assembly: Assembly, theirs: object_store.Bucket, file_id: str, size: int) -> None:
    data = os.urandom(size)
    write(bucket, file_id, 1, data, 0, size, [])
    found = lying(bucket, file_id, [(1, 0)], size)
    for _ in range(2):
        assembly.make(whole_key(file_id, 1), found, size, never)
    assert whole(theirs, file_id, 1) == data
    assert theirs.uploads() == []


@pytest.mark.parametrize("seed", range(3))
def test_streams_that_came_and_went(
    bucket: Bucket, assembly: Assembly, theirs: object_store.Bucket, file_id: str, seed: int
) -> None:
    """Each goes on where the row stood, in front of what the one before had still put."""
    chance = random.Random(seed)
    size = 19 * MIB + chance.randrange(MIB)
    data = chance.randbytes(size)
    second, third = chance.randrange(1, 9 * MIB), chance.randrange(10 * MIB, 15 * MIB)
    steps = [chance.randrange(1, 3 * MIB) for _ in range(3)]
    wrong = b"\0" * MIB
    write(bucket, file_id, 1, data[:second] + wrong, 0, size, steps)
    write(bucket, file_id, 2, data[second:third] + wrong, second, size, steps)
    write(bucket, file_id, 5, data[third:], third, size, [])
    runs = [(1, 0), (2, second), (5, third)]
    assembly.make(whole_key(file_id, 5), lying(bucket, file_id, runs, size), size, never)
    assert whole(theirs, file_id, 5) == data
    assert theirs.uploads() == []


def test_what_is_not_all_there_is_not_made(
    bucket: Bucket, assembly: Assembly, theirs: object_store.Bucket, file_id: str
) -> None:
    size = 20 * MIB
    write(bucket, file_id, 1, os.urandom(size), 0, size, [])
    found = lying(bucket, file_id, [(1, 0)], size)
    with pytest.raises(BytesMissing):
        assembly.make(whole_key(file_id, 1), found[:-1], size, never)
    # A piece that goes away in the middle of it.
    bucket.delete([found[1].piece.key])
    with pytest.raises(SinkError):
        assembly.make(whole_key(file_id, 1), found, size, never)
    assert bucket.size(whole_key(file_id, 1)) is None
    assert theirs.uploads() == []


def test_the_next_try_makes_what_an_earlier_one_left_undone(
    bucket: Bucket, assembly: Assembly, theirs: object_store.Bucket, file_id: str
) -> None:
    size = 17 * MIB
    data = os.urandom(size)
    write(bucket, file_id, 1, data, 0, size, [])
    # Killed in the middle: an upload is left open.
    left = bucket.begin(whole_key(file_id, 1))
    found = lying(bucket, file_id, [(1, 0)], size)
    bucket.copy_part(whole_key(file_id, 1), left, 1, found[0].piece.key)
    assembly.make(whole_key(file_id, 1), found, size, never)
    assert whole(theirs, file_id, 1) == data
