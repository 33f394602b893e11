"""Decides how a file's bytes are made of runs: each begun by one claim, named by its fence, and written by nobody else.

Must not know where bytes lie. A writer that was replaced goes on in its own run, behind where that ends: nobody reads
it there.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

from upload_server.domain.states import FileStatus

# The fence of bytes that no claim began: of a file that came whole, and of files from before there were runs.
WHOLE = 0


class Run(NamedTuple):
    """The bytes of a file from ``start`` to where its next run starts; of its newest to where they are counted."""

    fence: int
    start: int


def whole(fence: int) -> tuple[Run]:
    """Return the runs of a completed file: all of its bytes lie in its newest."""
    return (Run(fence, 0),)


def runs_of(ended: Iterable[tuple[int, int]], newest: int) -> tuple[Run, ...]:
    """Return the runs of a file in order: those that have ended, each a fence and its end, and the newest.

    Those that stayed empty are left out, but for the newest.
    """
    runs, start = list[Run](), 0
    for fence, end in sorted(ended):
        if end > start:
            runs.append(Run(fence, start))
            start = end
    return (*runs, Run(newest, start))


def parts_of(runs: Sequence[Run], start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Give the bytes from ``start`` to ``end`` run by run: fence, first byte, end."""
    for run, following in itertools.zip_longest(runs, runs[1:]):
        first, last = max(run.start, start), end if following is None else min(following.start, end)
        if first < last:
            yield run.fence, first, last


def left_over(
    found: Iterable[int], status: str, newest: int, begun: Collection[int], *, let_go: bool = False
) -> tuple[int, ...]:
    """Return the fences, of those ``found`` in a sink, whose bytes a file in ``status`` has no use for.

    ``begun`` are the fences of all its runs, read after the sink was: a run is begun before its first byte lies there.
    ``let_go``: it is completed, and its bytes were let go.
    """
    if let_go:
        return tuple(found)
    match status:
        case FileStatus.CANCELLED | FileStatus.FAILED:
            return tuple(found)
        case FileStatus.COMPLETED:
            # Where its own bytes are missing, those of other runs may be all that is left of them.
            fences = set(found)
            return tuple(fences - {newest}) if newest in fences else ()
        case FileStatus.UPLOADING:
            return tuple(fence for fence in found if fence not in begun)
    return ()
