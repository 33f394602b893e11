"""Which pieces a file's bytes lie in, by their names alone."""

from __future__ import annotations

import random
import uuid

import pytest

from support import object_store
from support.wanting import missing
from upload_server.sink.s3.names import (
    MIB,
    PIECE_BYTES,
    Piece,
    fence_of,
    id_in,
    next_border,
    part_bytes,
    parts,
    piece_of,
    reach,
    stretches,
    whole_key,
)

ID = "6ba7b810-9dad-41d1-80b4-00c04fd430c8"


def piece(fence: int, start: int, end: int) -> Piece:
    return Piece(ID, fence, start, end)


def test_a_name_is_read_back_as_it_was_written() -> None:
    for one in (piece(1, 0, 1), piece(123_456_789, 2**42, 2**42 + PIECE_BYTES)):
        assert piece_of(one.key) == one
        assert id_in(one.key) == ID
    assert piece(3, 8 * MIB, 16 * MIB).key == f"open/{ID}/00000003/0000000008388608-8388608"
    assert fence_of(whole_key(ID, 12)) == 12
    assert id_in(whole_key(ID, 12)) == ID


@pytest.mark.parametrize(
    "key",
    [
        "",
        "sink_id",
        f"open/{ID}",
        f"open/{ID}/00000001/",
        f"open/{ID}/1/0000000000000000-1",
        f"open/{ID.upper()}/00000001/0000000000000000-1",
        f"done/{ID}/1/x",
        f"done/{ID}/",
        f"other/{ID}/1",
        f"x/open/{ID}/00000001/0000000000000000-1",
    ],
)
def test_a_name_that_is_not_ours_is_nobodys(key: str) -> None:
    assert id_in(key) == ""
    assert piece_of(key) is None
    assert fence_of(key) is None


@pytest.mark.parametrize(
    ("size", "part"),
    [(0, 8), (1, 8), (10_000 * 8 * MIB, 8), (10_000 * 8 * MIB + 1, 9), (1024 * 1024 * MIB, 105)],
)
def test_no_file_has_more_parts_than_s3_takes(size: int, part: int) -> None:
    assert part_bytes(size) == part * MIB
    assert -(-size // part_bytes(size)) <= 10_000


def test_no_piece_crosses_a_border_of_parts() -> None:
    part = 9 * MIB
    assert next_border(0, part) == 8 * MIB
    assert next_border(8 * MIB, part) == 9 * MIB
    assert next_border(9 * MIB - 1, part) == 9 * MIB
    assert next_border(9 * MIB, part) == 17 * MIB


def test_what_a_replaced_stream_wrote_beyond_its_end_is_never_read() -> None:
    pieces = [piece(1, 0, 10), piece(1, 10, 20), piece(2, 10, 15), piece(3, 15, 30)]
    found = stretches(pieces, [(1, 0), (2, 10), (3, 15)], 25)
    assert [(each.piece.fence, each.start, each.end) for each in found] == [(1, 0, 10), (2, 10, 15), (3, 15, 25)]
    assert [each.is_all for each in found] == [True, True, False]


def test_a_run_may_end_inside_a_piece() -> None:
    found = stretches([piece(1, 0, 10), piece(2, 7, 12)], [(1, 0), (2, 7)], 12)
    assert [(each.piece.fence, each.start, each.end) for each in found] == [(1, 0, 7), (2, 7, 12)]


def test_a_gap_ends_what_can_be_read() -> None:
    pieces = [piece(1, 0, 10), piece(1, 12, 20), piece(2, 20, 30)]
    assert reach(stretches(pieces, [(1, 0), (2, 20)], 30)) == 10
    assert reach(stretches([], [(1, 0)], 30)) == 0
    # Bytes of a fence that no run names are nobody's.
    assert reach(stretches([piece(7, 0, 30)], [(1, 0)], 30)) == 0


def test_reading_may_begin_anywhere() -> None:
    pieces = [piece(1, 0, 10), piece(1, 10, 20)]
    found = stretches(pieces, [(1, 0)], 18, start=13)
    assert [(each.start, each.end) for each in found] == [(13, 18)]


@pytest.mark.parametrize("seed", range(30))
def test_parts_hold_every_byte_once_and_are_equal_but_for_the_last(seed: int) -> None:
    """Streams come and go at any offset; each byte of a part is the one that its run's stream wrote."""
    chance = random.Random(seed)
    file_id = str(uuid.UUID(int=chance.getrandbits(128), version=4))
    size = chance.randrange(1, 60 * MIB)
    part, pieces, runs, position, fence = part_bytes(size), list[Piece](), list[tuple[int, int]](), 0, 0
    while position < size:
        fence += 1
        runs.append((fence, position))
        at = position
        for _ in range(chance.randrange(1, 6)):
            end = min(size, next_border(at, part), at + chance.choice([1, 300_000, PIECE_BYTES]))
            if at < end:
                pieces.append(Piece(file_id, fence, at, end))
                at = end
        # Not all of it was recorded: the next stream begins further in front.
        position = at if at == size or chance.random() < 0.5 else chance.randrange(position, at + 1)
    chance.shuffle(pieces)
    found = stretches(pieces, runs, size)
    assert reach(found) == size
    made = list(parts(found, size))
    assert [each.number for each in made] == list(range(1, len(made) + 1))
    assert {each.size for each in made[:-1]} <= {part}
    position = 0
    for each in made:
        for stretch in each.stretches:
            assert stretch.start == position
            assert stretch.piece.start <= stretch.start < stretch.end <= stretch.piece.end
            assert stretch.piece.fence == max(fence for fence, first in runs if first <= position)
            position = stretch.end
    assert position == size


def test_the_libraries_that_the_other_tests_here_need_are_there() -> None:
    if not object_store.installed():
        missing("the packages boto3 and obstore are not installed")
