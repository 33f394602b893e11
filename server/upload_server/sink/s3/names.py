"""Decides what objects are called, and which pieces a file's bytes lie in. Pure.

Must not know an object store. A name says all there is to know of a piece: whose it is, which stream wrote it, where it
lies and how long it is. So what a stream leaves that was replaced or cancelled is told from what counts by name alone.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

MIB = 1024 * 1024
# A piece is no longer: it is sent again as a whole, and waits in memory until it lies there.
PIECE_BYTES = 8 * MIB
# S3 takes no more parts of one object, and none below 5 MiB but the last.
_MAX_PARTS = 10_000

# Ids are UUIDv4 text of ours. Every other name is refused: it could be another object's.
_ID = "[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
_IS_ID = re.compile(_ID)
_PIECE = re.compile(rf"open/({_ID})/([0-9]{{8,}})/([0-9]{{16,}})-([0-9]+)")
_WHOLE = re.compile(rf"done/({_ID})/([0-9]+)")
_DRAFT = re.compile(rf"draft/({_ID})")

# What says whose the bucket is.
IDENTITY = "sink_id"
# Folders of pieces, of whole files, and of marks that a whole file's row may never have been written.
OPEN, DONE, DRAFT = "open", "done", "draft"


def is_id(file_id: str) -> bool:
    """Whether it is an id of ours."""
    return _IS_ID.fullmatch(file_id) is not None


def whole_key(file_id: str, fence: int) -> str:
    """Name of a whole file, as the stream with ``fence`` completed it."""
    return f"{DONE}/{file_id}/{fence}"


def draft_key(file_id: str) -> str:
    """Name of the mark that a file came whole and that its row may be missing."""
    return f"{DRAFT}/{file_id}"


def id_in(key: str) -> str:
    """Return the id of the file that an object belongs to, empty when it is none of ours."""
    for pattern in (_PIECE, _WHOLE, _DRAFT):
        if (match := pattern.fullmatch(key)) is not None:
            return match[1]
    return ""


def fence_of(key: str) -> int | None:
    """Return the fence in the name of a piece or of a whole file; None of any other object."""
    match = _PIECE.fullmatch(key) or _WHOLE.fullmatch(key)
    return int(match[2]) if match else None


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes from ``start`` to ``end`` of a file, as the stream with ``fence`` wrote them."""

    file_id: str
    fence: int
    start: int
    end: int

    @property
    def key(self) -> str:
        """Its name; names of one fence sort as their bytes lie."""
        return f"{OPEN}/{self.file_id}/{self.fence:08}/{self.start:016}-{self.end - self.start}"


def piece_of(key: str) -> Piece | None:
    """Read the name of a piece; None when it is none."""
    match = _PIECE.fullmatch(key)
    if match is None:
        return None
    start = int(match[3])
    return Piece(match[1], int(match[2]), start, start + int(match[4]))


def part_bytes(size_bytes: int) -> int:
    """Bytes of each part of a whole file but the last: a function of its size, so that every node agrees."""
    mib = -(-size_bytes // (_MAX_PARTS * MIB))
    return max(PIECE_BYTES, mib * MIB)


def next_border(offset: int, part: int) -> int:
    """Return where a piece that begins at ``offset`` has to end at the latest."""
    return min(offset + PIECE_BYTES, (offset // part + 1) * part)


@dataclass(frozen=True, slots=True)
class Stretch:
    """Bytes of a file that lie in one piece: from ``start`` to ``end``, counted from the start of the file."""

    piece: Piece
    start: int
    end: int

    @property
    def is_all(self) -> bool:
        """Whether it is the whole piece."""
        return self.start == self.piece.start and self.end == self.piece.end


def stretches(pieces: Iterable[Piece], runs: Sequence[tuple[int, int]], end: int, start: int = 0) -> list[Stretch]:
    """Return where the bytes from ``start`` to ``end`` lie, in order; stops at the first byte that lies nowhere.

    ``runs``: fence and first byte of each run, in order. A run ends where the next begins; what a stream wrote beyond
    that was never counted, and is left out.
    """
    by_fence: dict[int, list[Piece]] = {}
    for piece in pieces:
        by_fence.setdefault(piece.fence, []).append(piece)
    found: list[Stretch] = []
    position = start
    for index, (fence, first) in enumerate(runs):
        run_end = min(end, runs[index + 1][1] if index + 1 < len(runs) else end)
        if run_end <= position or first > position:
            continue
        for piece in sorted(by_fence.get(fence, ()), key=lambda each: (each.start, -each.end)):
            if piece.start > position or position >= run_end:
                break
            if piece.end > position:
                found.append(Stretch(piece, position, min(piece.end, run_end)))
                position = found[-1].end
        if position < run_end:
            break
    return found


def reach(found: Sequence[Stretch], start: int = 0) -> int:
    """Return where the bytes end that lie without a gap."""
    return found[-1].end if found else start


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a whole file, ``number`` from 1, put together of what lies in ``stretches``."""

    number: int
    stretches: tuple[Stretch, ...]

    @property
    def size(self) -> int:
        """Its bytes."""
        return self.stretches[-1].end - self.stretches[0].start


def parts(found: Sequence[Stretch], size_bytes: int) -> Iterator[Part]:
    """Cut what lies in pieces into parts; ``found`` holds all bytes of the file."""
    part = part_bytes(size_bytes)
    begins = [stretch.start for stretch in found]
    for number, first in enumerate(range(0, size_bytes, part), 1):
        last = min(first + part, size_bytes)
        index, cut = bisect_right(begins, first) - 1, []
        while index < len(found) and found[index].start < last:
            stretch = found[index]
            cut.append(Stretch(stretch.piece, max(first, stretch.start), min(last, stretch.end)))
            index += 1
        yield Part(number, tuple(cut))
