"""Decides how much of a long list one turn of the event loop works on, so that calls get theirs in between.

Must not know what is done with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Final, TypeVar

T = TypeVar("T")

# Rows that are converted and checked in well under a millisecond: a cancel needs several turns.
ROWS: Final = 64


async def in_slices(rows: Sequence[T], pause: float = 0) -> AsyncIterator[Sequence[T]]:
    """Give ``rows`` a slice at a time, each in a turn of its own; a list that is one slice waits for no turn.

    ``pause``: seconds that others have between two slices.
    """
    for start in range(0, len(rows), ROWS):
        if start:
            await asyncio.sleep(pause)
        yield rows[start : start + ROWS]
