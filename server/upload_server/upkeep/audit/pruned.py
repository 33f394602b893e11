"""Decides how what retention takes of the trail is kept: as exported lines in files, each whole and durable before the
events go.

Must not know when that is. Each file begins where one before it ended, or, after a try that was interrupted, earlier.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from upload_server.domain.chain import Seal, form_of, link
from upload_server.domain.states import AuditEvent
from upload_server.process.files import sync_folder
from upload_server.store.values import AgedTrail

_NUMBER = re.compile(rb'"event_id":"(\d+)"')
_LINE = re.compile(rb'(?s)(.*),"hash":"([0-9a-f]{64})"}\n?')


class ChainBroken(Exception):
    """The trail is not what was sealed: it stays where it is, so that `audit verify` tells."""

    def __init__(self, event_id: int) -> None:
        super().__init__(f"event {event_id} is not what was sealed, so nothing is pruned; see `audit verify`")


class AnotherExport(Exception):
    """Events of another history lie under the name of an export: they may be the only copy."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} is there with other events, so nothing is pruned; name another --pruned-dir")


@dataclass(frozen=True, slots=True)
class Exported:
    """A line of an export, as it stands there: its hash may not be that of its ``form``."""

    event_id: int
    previous: str
    digest: str
    form: bytes

    @property
    def holds(self) -> bool:
        """Whether it is what was sealed."""
        return hashlib.sha256(self.form).hexdigest() == self.digest


def line_of(event: AuditEvent, previous: bytes, digest: bytes) -> bytes:
    """Return the line of an event, with the hash of the one before it and its own."""
    return form_of(event, previous)[:-1] + f',"hash":"{digest.hex()}"}}\n'.encode()


def write_pruned(folder: Path, aged: AgedTrail) -> Path:
    """Write events that are about to go into a file of their own, durably; returns which.

    Raises ``ChainBroken``, ``AnotherExport`` and OSError, and then leaves nothing.
    """
    lines = list(_lines_that_hold(aged))
    # Not those above it: their names would have to be durable too.
    folder.mkdir(mode=0o700, exist_ok=True)
    first, last = aged.events[0].event.event_id, aged.events[-1].event.event_id
    path = folder / f"audit-{first:019}-{last:019}.jsonl"
    # Under its name lies a whole one. Of two nodes that write it at once each has a file of its own until then.
    descriptor, unfinished = tempfile.mkstemp(prefix=f"{path.name}.", suffix=".unfinished", dir=folder)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.writelines(lines)
            file.flush()
            os.fsync(file.fileno())
        if path.exists() and path.read_bytes() != b"".join(lines):
            raise AnotherExport(path)
        Path(unfinished).rename(path)
    except BaseException:
        # A full disk would get one more of them with every try.
        Path(unfinished).unlink(missing_ok=True)
        raise
    for each in (folder, folder.absolute().parent):
        sync_folder(each)
    return path


def _lines_that_hold(aged: AgedTrail) -> Iterator[bytes]:
    previous = aged.origin
    for event, seal in aged.events:
        if seal.previous_id != previous.event_id or seal.hash != link(event, previous.hash):
            raise ChainBroken(event.event_id)
        yield line_of(event, previous.hash, seal.hash)
        previous = seal


def read_pruned(paths: Iterable[Path]) -> Iterator[Exported]:
    """Read exported lines of files, and of those in folders, in the order of their first events, whoever wrote them.

    Raises ValueError for a line that is none, and OSError.
    """
    files = [each for path in paths for each in (path.glob("*.jsonl") if path.is_dir() else [path])]
    for each in sorted(files, key=lambda each: (_begin_of(each), each.name)):
        with each.open("rb") as file:
            for number, line in enumerate(file, start=1):
                yield _read(line, f"line {number} of {each.name}")


def _begin_of(path: Path) -> int:
    """Return the event that a file begins with, 0 where that cannot be read."""
    with path.open("rb") as file:
        found = _NUMBER.search(file.readline())
    return int(found[1]) if found else 0


def _read(line: bytes, where: str) -> Exported:
    found = _LINE.fullmatch(line)
    if found is None:
        raise ValueError(f"{where} is no sealed event")
    form = found[1] + b"}"
    try:
        event = json.loads(form)
        return Exported(int(event["event_id"]), str(event["previous_hash"]), found[2].decode(), form)
    except (ValueError, TypeError, LookupError):
        raise ValueError(f"{where} is no sealed event") from None


def seal_of(line: Exported, before: Seal) -> Seal:
    """Return the seal of an exported event that follows ``before``."""
    return Seal(line.event_id, before.event_id, bytes.fromhex(line.digest))
