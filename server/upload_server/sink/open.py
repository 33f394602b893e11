"""Decides which sink a storage URL means. A new sink is one more branch here.

Must not know what a sink does.
"""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import unquote_to_bytes, urlsplit

from upload_server.domain.errors import CannotStart
from upload_server.process.room import Room
from upload_server.sink.disk.sink import DiskSink
from upload_server.sink.protocol import Sink


class UnusableStorageUrl(CannotStart):
    """The URL names no storage that this program can use; the message says why."""


def open_sink(url: str, room: Room | None = None) -> Sink:
    """Return the sink at ``url``, as ``file:///path/to/folder`` or ``s3://bucket/prefix``; raises ``CannotStart``.

    ``room`` tells what is left of its disk. Nothing is asked of it yet: ``check_usable`` of the sink does that.
    """
    if url.startswith("s3:"):
        return _in_object_store(url)
    folder = folder_of(url)
    if folder is not None:
        return DiskSink(folder, room or Room())
    raise UnusableStorageUrl("--storage-url: it looks like file:///path/to/folder or s3://bucket/prefix")


def folder_of(url: str) -> Path | None:
    """Return the folder that a storage URL names, None when it names none."""
    parts = urlsplit(url)
    if parts.scheme != "file" or not parts.path or parts.netloc or parts.query or parts.fragment:
        return None
    return Path(os.fsdecode(unquote_to_bytes(parts.path)))


def _in_object_store(url: str) -> Sink:
    try:
        # Its libraries are an extra, and take a while to import.
        from upload_server.sink.s3 import sink as s3  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise UnusableStorageUrl("--storage-url: s3:// needs the extra `s3` of the server") from error
    try:
        return s3.sink_at(url)
    except ValueError as error:
        raise UnusableStorageUrl(f"--storage-url: {error}") from None
