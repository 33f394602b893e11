"""Decides which sink a storage URL means. A new sink is one more branch here.

Must not know what a sink does.
"""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import unquote_to_bytes, urlsplit

from upload_server.domain.errors import CannotStart
from upload_server.process.room import Room
from upload_server.sink.disk import DiskSink
from upload_server.sink.protocol import Sink


class UnusableStorageUrl(CannotStart):
    """The URL names no storage that this program can use; the message says why."""


def open_sink(url: str, room: Room | None = None) -> Sink:
    """Return the sink at ``url``, as ``file:///path/to/folder``; raises ``UnusableStorageUrl``.

    ``room`` tells what is left of its disk.
    """
    parts = urlsplit(url)
    if parts.scheme == "file" and parts.path and not (parts.netloc or parts.query or parts.fragment):
        return DiskSink(Path(os.fsdecode(unquote_to_bytes(parts.path))), room or Room())
    raise UnusableStorageUrl("a storage URL looks like file:///path/to/folder")
