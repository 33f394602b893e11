"""Decides where ``uploadctl download`` stores bytes: under their name only once all are there, and the right ones."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from upload.async_client import AsyncClient
from upload.cli import finding
from upload.cli.arguments import Arguments
from upload.cli.exits import Exit
from upload.cli.output import Output, as_json
from upload.cli.texts import size_text, visible
from upload.records import File


class CannotStore(OSError):
    """The bytes cannot be stored where they should go; the message says why."""


async def download(client: AsyncClient, arguments: Arguments, output: Output) -> Exit:
    """Store the bytes of a file, or write them to stdout."""
    file_id = await finding.file_id(client, arguments.id)
    if arguments.to == "-":
        await _write(client, file_id, sys.stdout.buffer, "to stdout")
        return Exit.OK
    file = await client.get(file_id)
    target = _target(arguments.to, file)
    with _opened(target, force=arguments.force) as into:
        await _write(client, file_id, into, str(target))
    text = f"Downloaded {visible(file.filename)} ({size_text(file.size_bytes)}) to {visible(str(target))}."
    output.result({**as_json(file), "path": str(target)}, text)
    return Exit.OK


async def _write(client: AsyncClient, file_id: str, into: IO[bytes], name: str) -> None:
    async for piece in client.download(file_id):
        with _naming(name):
            into.write(piece)
    with _naming(name):
        into.flush()


@contextlib.contextmanager
def _naming(target: object) -> Iterator[None]:
    """Say of what cannot be stored where it should have gone: the system names a file that nobody knows, or none."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise CannotStore(f"Cannot write {target}: {error.strerror}.") from error


def _target(to: str, file: File) -> Path:
    """Return the path to store at; of the file's name the last segment counts."""
    name = file.filename.rpartition("/")[2]
    if not to:
        return Path(name)
    return Path(to) / name if to.endswith(os.sep) or Path(to).is_dir() else Path(to)


def _opened(target: Path, *, force: bool) -> contextlib.AbstractContextManager[IO[bytes]]:
    """Open what takes the bytes: a device or a pipe itself, which no file may take the place of, else a new file."""
    with _naming(target):
        try:
            there = target.lstat()
        except FileNotFoundError:
            return _beside(target, force=force)
        mode = target.stat().st_mode if target.exists() else there.st_mode
        if stat.S_ISCHR(mode) or stat.S_ISFIFO(mode):
            return target.open("wb")
    if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
        raise CannotStore(f"Cannot write {target}: it is no file, and neither a character device nor a pipe.")
    if not force:
        raise CannotStore(f"{target} is there already; --force replaces it, --to PATH names another")
    return _beside(target, force=True)


@contextlib.contextmanager
def _beside(target: Path, *, force: bool) -> Iterator[IO[bytes]]:
    """Open a file that takes the name of ``target`` in one step, after the block; else nothing is left of it."""
    with _naming(target):
        descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=".uploadctl.")
    part = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
        # As any new file: readable by whom the umask lets.
        mask = os.umask(0)
        os.umask(mask)
        with _naming(target):
            part.chmod(0o666 & ~mask)
            if force:
                part.replace(target)
            else:
                # Fails where somebody has made one meanwhile.
                target.hardlink_to(part)
    finally:
        part.unlink(missing_ok=True)
