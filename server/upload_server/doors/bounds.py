"""Decides how much the request of each method may hold, through whichever door.

Must not know how a door reads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from transcoder import RequestLimits
from upload_server.domain.fields import MAX_BATCH_FILES, MAX_PUT_BYTES, MAX_WATCH_TARGETS

KIB: Final = 1024
# What bodies over 64 KiB may take together, of both ports.
BODY_BYTES: Final = 64 * KIB * KIB
# Of health checking, which has one short field.
SMALL_REQUEST: Final = RequestLimits(max_bytes=64 * KIB, max_elements=64, max_value_bytes=32 * KIB)
# A file of the longest that may come whole, in Base64 where the request is JSON.
_DATA_BYTES: Final = (MAX_PUT_BYTES + 2) // 3 * 4 + 2 * KIB


def request_limits(max_message_bytes: int) -> RequestLimits:
    """Return the limits of a method that ``method_limits`` does not name."""
    return replace(SMALL_REQUEST, max_bytes=max_message_bytes)


def method_limits(max_message_bytes: int) -> Mapping[str, RequestLimits]:
    """Return the limits of the methods whose requests have many elements or a long one, by their names."""
    others = request_limits(max_message_bytes)
    return {
        "InitiateBatch": replace(others, max_elements=MAX_BATCH_FILES),
        "PutFile": replace(others, max_value_bytes=_DATA_BYTES),
        "WatchStatus": replace(others, max_elements=MAX_WATCH_TARGETS),
    }
