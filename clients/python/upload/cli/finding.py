"""Decides which file or batch an ID on the command line means: a whole id, or the first characters of one."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import TypeVar

from upload.async_client import AsyncClient
from upload.cli.texts import visible
from upload.records import Batch, File

# A whole id, and whatever cannot begin one, is asked for as it is.
_BEGINNING = re.compile(r"[0-9a-f][0-9a-f-]{3,34}")
_TOO_SHORT = re.compile(r"[0-9a-f][0-9a-f-]{0,2}")
_UPPER = re.compile(r"[0-9A-Fa-f-]{1,36}")
_NEWEST = 10_000
_MOST_SHOWN = 10
_OPEN_FILES = ("pending", "uploading")
_OPEN_BATCHES = ("pending", "processing")
R = TypeVar("R", File, Batch)


class AmbiguousId(ValueError):
    """Several ids begin so, or may."""


async def file_id(client: AsyncClient, text: str) -> str:
    """Return the id of the file that ``text`` means; raises ``AmbiguousId``.

    Beginnings are looked for among all files that are open and the newest 10,000.
    """
    text = _lower(text)
    if not _BEGINNING.fullmatch(text):
        return text
    found = {file.file_id: f"{visible(file.filename)}, {file.status}" async for file in _files(client, text)}
    return _only(text, found)


async def batch_id(client: AsyncClient, text: str) -> str:
    """Return the id of the batch that ``text`` means; otherwise as ``file_id``."""
    text = _lower(text)
    if not _BEGINNING.fullmatch(text):
        return text
    found = {batch.batch_id: f"{batch.total_files} files, {batch.status}" async for batch in _batches(client, text)}
    return _only(text, found)


def _lower(text: str) -> str:
    """Return an id as the server writes it: other programs write them in capitals."""
    text = text.lower() if _UPPER.fullmatch(text) else text
    if _TOO_SHORT.fullmatch(text):
        raise AmbiguousId(f"{text} is too little of an id: give its first 4 characters, or more")
    return text


def _only(text: str, found: dict[str, str]) -> str:
    """Return the only id; none begins so: the server says that it knows no such one."""
    if len(found) <= 1:
        return next(iter(found), text)
    shown = "; ".join(f"{key} ({what})" for key, what in list(found.items())[:_MOST_SHOWN])
    more = f"; and {len(found) - _MOST_SHOWN} more" if len(found) > _MOST_SHOWN else ""
    raise AmbiguousId(f"{text} begins {len(found)} ids, give more of it: {shown}{more}")


async def _files(client: AsyncClient, text: str) -> AsyncIterator[File]:
    newest = client.list_files(order_by="created_at desc", page_size=1000)
    async for file in _first(newest, _NEWEST):
        if file.file_id.startswith(text):
            yield file
    async for file in client.list_files(statuses=_OPEN_FILES, page_size=1000):
        if file.file_id.startswith(text):
            yield file


async def _batches(client: AsyncClient, text: str) -> AsyncIterator[Batch]:
    newest = client.list_batches(order_by="created_at desc", page_size=1000)
    async for batch in _first(newest, _NEWEST):
        if batch.batch_id.startswith(text):
            yield batch
    async for batch in client.list_batches(statuses=_OPEN_BATCHES, page_size=1000):
        if batch.batch_id.startswith(text):
            yield batch


async def _first(items: AsyncIterator[R], count: int) -> AsyncIterator[R]:
    seen = 0
    async for item in items:
        yield item
        seen += 1
        if seen == count:
            return
