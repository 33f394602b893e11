"""Decides how what an inspection reads is put together, whichever database it reads.

Must not know SQL.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from typing import TypeVar

from upload_server.store.inspection import BatchFacts, Damaged, EventFacts, FileFacts, Trail
from upload_server.store.sql.connection import said
from upload_server.store.sql.rows import Row

R = TypeVar("R", FileFacts, BatchFacts)


@contextlib.contextmanager
def as_damaged(*errors: type[BaseException]) -> Iterator[None]:
    """Raise ``Damaged`` for ``errors``: the database's own, and what its rows may lead to."""
    try:
        yield
    except errors as error:
        raise Damaged(said(error)) from error


def side_by_side(rows: Iterator[Row], events: Iterator[Row], make: Callable[..., R]) -> Iterator[Trail[R]]:
    """Join two walks in the order of row ids; events without a row come with None."""
    trails = (
        (row_id, tuple(EventFacts(*event[1:]) for event in group))
        for row_id, group in itertools.groupby(events, key=lambda event: event[0])
    )
    trail = next(trails, None)
    for row in rows:
        while trail is not None and trail[0] < row[0]:
            yield Trail(trail[0], None, trail[1])
            trail = next(trails, None)
        if trail is not None and trail[0] == row[0]:
            yield Trail(row[0], make(*row), trail[1])
            trail = next(trails, None)
        else:
            yield Trail(row[0], make(*row), ())
    while trail is not None:
        yield Trail(trail[0], None, trail[1])
        trail = next(trails, None)
