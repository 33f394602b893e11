"""Decides what a process must have before it serves: its folder, descriptors, the database, and the place of the bytes.

Must not know of what parts a service is built. Raises ``CannotStart`` with what a user can mend.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog

from upload_server import __version__
from upload_server.app import Service, utc_now
from upload_server.config import Config
from upload_server.domain.errors import CannotStart, UploadError
from upload_server.domain.states import FileStatus
from upload_server.process import Metrics
from upload_server.process.descriptors import Descriptors, needed_for, raise_limit
from upload_server.process.files import doubts_about, open_to_all, refuse_strangers_link
from upload_server.process.metrics import Workers
from upload_server.process.room import Room
from upload_server.sink.open import folder_of, open_sink
from upload_server.sink.protocol import Sink, SinkError
from upload_server.store.lock import FileLock, lock_directory
from upload_server.store.open import migrate_store, open_store, store_at
from upload_server.store.options import StoreOptions
from upload_server.store.protocol import Store

log = structlog.get_logger(__name__)

# Beside the database: eight files that a start on a full disk gives up.
_BALLAST_BYTES = 8 * 1024 * 1024
# Of nodes that start together one begins the place of their bytes; the others wait for it so long, looking so often.
_BEGIN_SECONDS, _LOOK_SECONDS = 3.0, 0.1


async def serve(
    config: Config, stop: asyncio.Event, started: Callable[[int, int], None], workers: Workers | None = None
) -> None:
    """Open the store, serve until ``stop`` is set, drain, close the store. Raises what a user can mend.

    ``workers``: this process is one of several nodes on one data directory, for which somebody else holds what
    ``share`` returned.
    """
    descriptors = _share_descriptors(config)
    shared = workers is not None
    lock = None if shared else _take_directory(config)
    try:
        room = Room()
        options = StoreOptions(
            linger_seconds=config.linger,
            max_database_bytes=config.max_database_bytes,
            room=room,
            ballast_bytes=_BALLAST_BYTES,
            shared=shared,
            version=__version__,
            address=f"{socket.gethostname()}/{os.getpid()}",
        )
        store = await open_store(config.url, options)
        try:
            sink = open_sink(config.sink_url, room)
            # The bytes that a server's database tells of may lie at another node's.
            if config.storage_url or store_at(config.url).folder is None:
                await _know_sink(store, sink, "--storage-url" if config.storage_url else "--data-dir")
            metrics = Metrics(__version__, workers, examples=bool(config.otlp_endpoint))
            await Service(config, store, sink, descriptors, metrics).run(stop, started)
        finally:
            await store.close()
    finally:
        if lock is not None:
            lock.release()


async def _know_sink(store: Store, sink: Sink, option: str) -> None:
    """Raise ``CannotStart`` unless bytes can be stored in the place that ``option`` names, and it is this store's."""
    try:
        await asyncio.to_thread(sink.check_usable)
        owner = await asyncio.to_thread(sink.identity)
        if not owner:
            counts = await store.count(None, utc_now())
            is_empty = not await asyncio.to_thread(any, sink.stored())
            if is_empty and counts.files[FileStatus.COMPLETED].files:
                raise CannotStart(
                    f"{option}: nothing lies there, but the database has files: name the place where their bytes lie,"
                    " or bring them by `upload-server copy`"
                )
            # Where bytes lie already, `copy` has brought them.
            owner = await _begun_by_another(store, sink, option) if is_empty else ""
            owner = owner or await asyncio.to_thread(sink.adopt, store.store_id)
    except SinkError as error:
        raise CannotStart(f"{option}: it cannot be used: {error}") from error
    if owner != store.store_id:
        raise CannotStart(
            f"{option}: it belongs to another database; name a place of its own, another prefix for example, or the"
            " database that it belongs to"
        )


async def _begun_by_another(store: Store, sink: Sink, option: str) -> str:
    """Return whose an empty place is once the node that leads has begun it; the empty text where this node leads.

    Raises ``CannotStart`` when that node has begun another place: files would lie where half of the nodes look.
    """
    deadline = time.monotonic() + _BEGIN_SECONDS
    while True:
        # Of two nodes that join at once both believe that they lead, until they say again that they live.
        with contextlib.suppress(UploadError):
            await store.beat()
        if store.leads:
            return ""
        if time.monotonic() > deadline:
            raise CannotStart(
                f"{option}: nothing lies there, but another node runs on this database, or died a moment ago; name the"
                " place where its bytes lie"
            )
        await asyncio.sleep(_LOOK_SECONDS)
        if owner := await asyncio.to_thread(sink.identity):
            return owner


def share(config: Config) -> Sequence[FileLock]:
    """Take the data directory and its store for several nodes of this machine, each of which serves ``shared``.

    Returns the locks: they last until each process that has inherited their descriptors has ended, or released them.
    Raises ``CannotStart``.
    """
    with contextlib.ExitStack() as taken:
        locks = [_take_directory(config)]
        taken.callback(locks[0].release)
        of_store = store_at(config.url).share()
        taken.pop_all()
    return locks if of_store is None else [*locks, of_store]


async def migrate(config: Config) -> Sequence[str]:
    """Apply the schema migrations that are missing; returns their names. Raises ``CannotStart``."""
    lock = _take_directory(config)
    try:
        return await migrate_store(config.url)
    finally:
        lock.release()


def _share_descriptors(config: Config) -> Descriptors:
    """Raise the limit of descriptors as far as it goes, and share out what it allows."""
    descriptors = Descriptors.of(raise_limit())
    # Sockets may take half of the connections.
    needed = needed_for(config.max_uploads, 2 * config.max_websockets)
    if descriptors.limit < needed:
        log.warning(
            "the limit of open files is below what --max-uploads and --max-websockets allow; raise it, or lower these",
            limit=descriptors.limit,
            needed=needed,
            uploads=descriptors.uploads,
            connections_per_port=descriptors.connections,
        )
    return descriptors


def _take_directory(config: Config) -> FileLock:
    """Make the data directory if need be, and take it for this process; raises ``CannotStart``."""
    if config.pruned_dir:
        _check_pruned(Path(config.pruned_dir))
    directory = config.data_dir
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        folders = [directory, folder_of(config.sink_url), store_at(config.url).folder]
        for folder in {folder.absolute(): None for folder in folders if folder is not None}:
            _judge_folder(folder)
        return lock_directory(directory)
    except OSError as error:
        raise CannotStart(f"--data-dir: {error.filename or directory} cannot be used: {error.strerror}") from error


def _judge_folder(folder: Path) -> None:
    """Raise ``CannotStart`` or OSError where everybody may put files in the place of ours; warn where some may."""
    refuse_strangers_link(folder)
    if not folder.exists():
        return
    if open_to_all(folder):
        raise CannotStart(f"everybody may write to {folder}, where our files lie; take that away: chmod o-w {folder}")
    for doubt in doubts_about(folder):
        log.warning("others may change what lies in our folder", folder=str(folder), why=doubt)


def _check_pruned(folder: Path) -> None:
    """Raise ``CannotStart`` where nothing could be kept of what retention takes: that may be due in a year only."""
    try:
        _judge_folder(folder)
    except OSError as error:
        raise CannotStart(f"--pruned-dir: {folder} cannot be used: {error.strerror}") from error
    if not os.access(folder if folder.exists() else folder.absolute().parent, os.W_OK | os.X_OK):
        raise CannotStart(f"--pruned-dir: {folder}: it, or the folder to make it in, is not there or cannot be written")
