"""Decides how much the request of each method may hold, through whichever door.

Must not know how a door reads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from transcoder import RequestLimits
from upload_server.domain.fields import MAX_BATCH_FILES, MAX_PUT_BYTES, MAX_WATCH_TARGETS

KIB: Final = 1024
# What bodies over 64 KiB may take together, of both ports.
BODY_BYTES: Final = 64 * KIB * KIB
# Of a method that is not named below; no request of theirs has half of it.
REQUEST: Final = RequestLimits(max_bytes=64 * KIB, max_elements=64, max_value_bytes=32 * KIB)
# A thousand ids of 128 characters, each of up to four bytes.
_WATCH: Final = RequestLimits(max_bytes=600 * KIB, max_elements=MAX_WATCH_TARGETS, max_value_bytes=32 * KIB)
# A file of the longest that may come whole, in Base64 where the request is JSON.
_DATA_BYTES: Final = (MAX_PUT_BYTES + 2) // 3 * 4 + 2 * KIB
_PUT: Final = RequestLimits(max_bytes=416 * KIB, max_elements=64, max_value_bytes=_DATA_BYTES)


def request_limits(max_message_bytes: int) -> Mapping[str, RequestLimits]:
    """Return the limits of the methods whose requests are long, by their names."""
    batch = RequestLimits(max_bytes=max_message_bytes, max_elements=MAX_BATCH_FILES, max_value_bytes=32 * KIB)
    return {"InitiateBatch": batch, "PutFile": _PUT, "WatchStatus": _WATCH}
