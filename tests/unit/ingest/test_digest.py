"""The digest that goes on beside the writing: from memory what is near, from the disk what is not, each byte once."""

from __future__ import annotations

import hashlib
import os
import threading
import uuid
from pathlib import Path

import pytest

from unit.ingest.world import KIB, GatedSink
from upload_server.domain.runs import Run
from upload_server.ingest.digest import Digest, Piece
from upload_server.sink.protocol import BytesMissing

SIZE = 64 * KIB
RUNS = (Run(1, 0),)


def never() -> bool:
    """Nobody stops it."""
    return False


def piece(data: bytes) -> Piece:
    return Piece([data[: len(data) // 2], data[len(data) // 2 :]], len(data), len(data) + 1)


@pytest.fixture
def sink(tmp_path: Path) -> GatedSink:
    return GatedSink(tmp_path / "bytes")


def test_what_is_near_is_hashed_from_memory_and_released_then(sink: GatedSink) -> None:
    digest = Digest(sink, str(uuid.uuid4()), RUNS, 0, 2 * SIZE)
    data = os.urandom(2 * SIZE)
    digest.add(piece(data[:SIZE]))
    digest.add(piece(data[SIZE:]))
    assert (digest.lag, digest.released) == (2 * SIZE, 0)
    digest.go_on(SIZE, never)
    assert (digest.lag, digest.released) == (SIZE, SIZE + 1)
    digest.go_on(SIZE, never)
    assert (digest.lag, digest.released, sink.bytes_read) == (0, 2 * (SIZE + 1), 0)
    assert digest.hexdigest() == hashlib.sha256(data).hexdigest()


def test_what_is_far_is_let_go_of_and_read_back(sink: GatedSink) -> None:
    file_id, data = str(uuid.uuid4()), os.urandom(4 * SIZE)
    file = sink.open(file_id, RUNS, len(data), 0)
    digest = Digest(sink, file_id, RUNS, 0, 2 * SIZE)
    for start in range(0, 3 * SIZE, SIZE):
        file.append([data[start : start + SIZE]])
        digest.add(piece(data[start : start + SIZE]))
    assert digest.released == 3 * (SIZE + 1)
    digest.go_on(2 * SIZE, never)
    file.append([data[3 * SIZE :]])
    digest.add(piece(data[3 * SIZE :]))
    assert digest.released == 3 * (SIZE + 1)
    digest.go_on(2 * SIZE, never)
    assert (digest.lag, digest.released, sink.bytes_read) == (0, 4 * (SIZE + 1), 3 * SIZE)
    assert digest.hexdigest() == hashlib.sha256(data).hexdigest()


def test_bytes_that_are_gone_are_an_error(sink: GatedSink) -> None:
    digest = Digest(sink, str(uuid.uuid4()), RUNS, SIZE, SIZE)
    with pytest.raises(BytesMissing):
        digest.go_on(SIZE, never)


def test_whoever_stops_it_leaves_nothing_half_counted(sink: GatedSink) -> None:
    digest = Digest(sink, str(uuid.uuid4()), RUNS, 0, 2 * SIZE)
    digest.add(piece(bytes(SIZE)))
    digest.go_on(SIZE, lambda: True)
    assert (digest.position, digest.released) == (0, 0)


@pytest.mark.parametrize("most_kept", [0, 3 * KIB, 1 << 30])
def test_one_thread_adds_while_another_hashes(sink: GatedSink, most_kept: int) -> None:
    file_id, data = str(uuid.uuid4()), os.urandom(8 * 1024 * KIB)
    digest = Digest(sink, file_id, RUNS, 0, most_kept)
    file = sink.open(file_id, RUNS, len(data), 0)
    cost = 0

    def write() -> None:
        nonlocal cost
        for start in range(0, len(data), 5 * KIB):
            part = data[start : start + 5 * KIB]
            file.append([part])
            digest.add(piece(part))
            cost += len(part) + 1

    writer = threading.Thread(target=write)
    writer.start()
    while writer.is_alive() or digest.lag:
        digest.go_on(64 * KIB, never)
    writer.join()
    assert digest.hexdigest() == hashlib.sha256(data).hexdigest()
    assert digest.released == cost
