"""Named points of the server's code at which it can be killed, put there from outside by wrapping its functions.

A point whose function is gone fails loudly: it must follow the code.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

_SQL = "upload_server.store.sql"
_SQLITE = "upload_server.store.sqlite"
_COMMANDS = "upload_server.store.commands"
_DISK = "upload_server.sink.disk"


class PointRotten(Exception):
    """The function that a point wraps is no longer there."""


@dataclass(frozen=True)
class Point:
    """Where: ``function`` or ``Class.method`` of a module; ``sql``: only when it is called with this statement."""

    module: str
    name: str
    sql: str = ""


_STORE = "WritingStore"
# Each can be crashed at `.before` and `.after`.
FUNCTIONS: Mapping[str, Point] = {
    "begin": Point(f"{_SQL}.transaction", "SqlTransaction.__init__"),
    "finish": Point(f"{_SQLITE}.transaction", "SqliteTransaction.finish"),
    "commit": Point(f"{_SQL}.connection", "Connection.execute", sql="COMMIT"),
    # On the event loop, after the commit: watchers and callers are told.
    "answer": Point(f"{_COMMANDS}.writer", "Writer._deliver"),
    "initiate": Point(f"{_COMMANDS}.store", f"{_STORE}.initiate_upload"),
    "initiate-batch": Point(f"{_COMMANDS}.store", f"{_STORE}.initiate_batch"),
    "claim": Point(f"{_COMMANDS}.store", f"{_STORE}.claim"),
    "record": Point(f"{_COMMANDS}.store", f"{_STORE}.record_progress"),
    "complete": Point(f"{_COMMANDS}.store", f"{_STORE}.complete"),
    "fail": Point(f"{_COMMANDS}.store", f"{_STORE}.fail"),
    "cancel": Point(f"{_COMMANDS}.store", f"{_STORE}.cancel_file"),
    "cancel-batch": Point(f"{_COMMANDS}.store", f"{_STORE}.cancel_batch"),
    "settle": Point(f"{_COMMANDS}.store", f"{_STORE}.settle_deletions"),
    "tell-stream": Point("upload_server.ingest.registry", "Ingest.stop"),
    "tell-watchers": Point("upload_server.watch.hub", "WatchHub._publish"),
    "open-bytes": Point(f"{_DISK}.sink", "DiskSink.open"),
    "make-shard": Point(f"{_DISK}.shards", "Shards._make"),
    "sync-folder": Point(f"{_DISK}.sink", "_sync_entries"),
    "append": Point(f"{_DISK}.file", "DiskFile.append"),
    "sync": Point(f"{_DISK}.file", "DiskFile.sync"),
    "close-bytes": Point(f"{_DISK}.file", "DiskFile.close"),
    "unlink": Point(f"{_DISK}.sink", "_unlink"),
    "delete": Point(f"{_DISK}.sink", "DiskSink.delete_all"),
}
# On the way of files that come whole, which the traffic of other suites does not take.
WHOLE: Mapping[str, Point] = {
    "put": Point(f"{_COMMANDS}.store", f"{_STORE}.put_file"),
    "complete-whole": Point(f"{_COMMANDS}.store", f"{_STORE}.complete_whole"),
    "put-bytes": Point(f"{_DISK}.sink", "DiskSink.put"),
    "keep-draft": Point(f"{_DISK}.sink", "DiskSink.keep"),
}
# On the way of what retention takes, which is a day old at least.
PRUNING: Mapping[str, Point] = {
    "write-pruned": Point("upload_server.upkeep.audit.pruned", "write_pruned"),
    "prune-trail": Point(f"{_COMMANDS}.store", f"{_STORE}.prune_trail"),
    "delete-rows": Point(f"{_COMMANDS}.store", f"{_STORE}.delete_rows"),
}
# Hit while it starts or stops; a test has to stop the server for the second kind.
AT_START: Mapping[str, Point] = {
    "open-database": Point(f"{_SQLITE}.committer", "SqliteCommitter._open"),
    "sweep": Point("upload_server.upkeep.janitor", "Janitor.sweep_orphans"),
    "first-deletions": Point("upload_server.upkeep.janitor", "Janitor.delete_owed"),
}
AT_STOP: Mapping[str, Point] = {
    "drain": Point("upload_server.app", "Service._drain"),
    "end-streams": Point("upload_server.ingest.registry", "Ingest.aclose"),
    "checkpoint": Point(f"{_SQLITE}.committer", "SqliteCommitter.close"),
}
# Half of the bytes reach the disk.
TORN = "append.half"


def _both(names: Mapping[str, Point]) -> tuple[str, ...]:
    return tuple(f"{name}.{when}" for name in names for when in ("before", "after"))


RUNNING_POINTS = (*_both(FUNCTIONS), TORN)
WHOLE_POINTS = _both(WHOLE)
START_POINTS = _both(AT_START)
STOP_POINTS = _both(AT_STOP)


def die(point: str) -> None:
    """Say where, in one write, and be gone as by kill -9."""
    os.write(2, json.dumps({"event": "crashed", "point": point}).encode() + b"\n")
    os.kill(os.getpid(), signal.SIGKILL)


def install(spec: str) -> None:
    """Have this process die at ``NAME.before``, ``NAME.after`` (or ``append.half``), the ``:nth`` time it comes by."""
    point, _, nth = spec.partition(":")
    name, _, when = point.rpartition(".")
    place = {**FUNCTIONS, **WHOLE, **PRUNING, **AT_START, **AT_STOP}.get(name)
    if place is None or when not in ({"before", "after", "half"} if name == "append" else {"before", "after"}):
        raise PointRotten(f"no such point: {point}")
    countdown = _Countdown(point, int(nth or 1), place.sql)
    owner, last, found = find(place)
    if isinstance(found, classmethod):
        wrapped: Any = classmethod(_wrap(found.__func__, when, countdown))
    else:
        wrapped = _wrap(found, when, countdown)
    _put(owner, last, wrapped)


class _Countdown:
    def __init__(self, point: str, nth: int, sql: str) -> None:
        self._point = point
        self._left = nth
        self._sql = sql

    def is_up(self, arguments: tuple[Any, ...]) -> bool:
        """Whether it is this call's turn; counts it."""
        if self._sql and self._sql not in arguments:
            return False
        self._left -= 1
        return self._left == 0

    def die(self) -> None:
        die(self._point)


def find(place: Point) -> tuple[Any, str, Any]:
    """Return the owner of a point's function, its name there, and the function as it is defined."""
    owner: Any = importlib.import_module(place.module)
    *path, last = place.name.split(".")
    for part in path:
        owner = getattr(owner, part, None)
    found = vars(owner).get(last) if owner is not None else None
    if not isinstance(found, classmethod) and not inspect.isfunction(found):
        raise PointRotten(f"{place.module}.{place.name} is gone")
    if place.sql and place.sql not in inspect.getsource(importlib.import_module(f"{_SQLITE}.transaction")):
        raise PointRotten(f"nobody executes {place.sql}")
    return owner, last, found


def _wrap(function: Callable[..., Any], when: str, countdown: _Countdown) -> Callable[..., Any]:
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def later(*arguments: Any, **named: Any) -> Any:
            up = countdown.is_up(arguments)
            if up and when == "before":
                countdown.die()
            result = await function(*arguments, **named)
            if up:
                countdown.die()
            return result

        return later

    @functools.wraps(function)
    def now(*arguments: Any, **named: Any) -> Any:
        up = countdown.is_up(arguments)
        if up and when == "half":
            os.write(arguments[0]._descriptor, _half(arguments[1]))
        if up and when != "after":
            countdown.die()
        result = function(*arguments, **named)
        if up:
            countdown.die()
        return result

    return now


def _half(chunks: Any) -> bytes:
    data = b"".join(bytes(chunk) for chunk in chunks)
    return data[: len(data) // 2]


def _put(owner: Any, name: str, new: object) -> None:
    """Set it, also where it was imported by name."""
    old = vars(owner)[name]
    setattr(owner, name, new)
    if isinstance(owner, ModuleType):
        for module in list(sys.modules.values()):
            if module.__name__.startswith("upload_server") and vars(module).get(name) is old:
                setattr(module, name, new)
