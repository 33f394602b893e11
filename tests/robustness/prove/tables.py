"""How a server has left its rows and bytes, read behind its back once everything has come to rest."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import sqlite3
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from robustness.prove.clients import content_of
from robustness.prove.history import Recorder
from robustness.prove.views import BatchView, EventView, FileView, of_json
from support.object_store import Bucket
from upload_server.sink.s3.names import fence_of, id_in, piece_of
from upload_server.store.open import store_at
from upload_server.upkeep.audit.verify import verify

# How often everything may change once more when all looked quiet.
_ROUNDS = 5

_FILES = """
    SELECT file_id, size_bytes, bytes_received, status, coalesce(batch_id, '') AS batch_id, sha256, created_at,
           updated_at, completed_at, cancelled_at, cancelled_by, cancel_reason, failure_reason, revision, change_no
    FROM file"""
# The newest run of each, beside each of those before it.
_RUNS = """
    SELECT f.file_id, f.run_fence, r.fence, r.upto FROM file AS f LEFT JOIN run AS r ON r.file_row = f.id
    ORDER BY f.id, r.fence"""
_EVENTS = """
    SELECT a.change_no AS event_id, coalesce(f.file_id, '') AS file_id,
           coalesce(b.batch_id, f.batch_id, '') AS batch_id, a.from_status, a.to_status, a.actor, a.source, a.reason,
           a.request_id, a.occurred_at
    FROM audit_event AS a LEFT JOIN file AS f ON f.id = a.file_row LEFT JOIN batch AS b ON b.id = a.batch_row
    ORDER BY a.change_no"""


# A history's ``tables`` line, and whether nothing was written while it was read.
Seen = tuple[dict[str, Any], bool]


def read_tables(data_dir: Path) -> Seen:
    """Read everything, as a history's ``tables`` line, and whether nothing was written meanwhile.

    Rows and audit are of one moment; bytes are looked at after it, so they belong to the rows only if all stood still.
    """
    with closing(sqlite3.connect(f"file:{data_dir / 'upload.sqlite3'}?mode=ro", uri=True)) as database:
        database.row_factory = sqlite3.Row
        version = _version(database)
        tables = _rows(database)
        tables["disk"] = dict(_disk(_in_folder(data_dir / "bytes"), tables["files"], _runs(database)))
        return tables, _version(database) == version


def _version(database: sqlite3.Connection) -> int:
    """A number that changes with each commit of others."""
    return int(database.execute("PRAGMA data_version").fetchone()[0])


def read_shared(url: str, storage: Path | Bucket) -> Seen:
    """The same of a store on PostgreSQL and a folder, or a bucket: no commit has come between two looks at the rows."""
    import psycopg  # noqa: PLC0415 - an extra
    from psycopg.rows import dict_row  # noqa: PLC0415

    with psycopg.connect(url, autocommit=True, row_factory=dict_row) as database:
        tables, runs = _rows(database, "BEGIN ISOLATION LEVEL REPEATABLE READ"), _runs(database)
        lies = _in_folder(storage) if isinstance(storage, Path) else _in_bucket(storage)
        disk = dict(_disk(lies, tables["files"], runs))
        again = _rows(database, "BEGIN ISOLATION LEVEL REPEATABLE READ"), _runs(database)
    with closing(store_at(url).inspect()) as inspection:
        broken = verify(inspection).broken
    return {**tables, "disk": disk, "alarms": [str(broken)] if broken else []}, again == (tables, runs)


def _rows(database: Any, begin: str = "BEGIN") -> dict[str, Any]:
    # One snapshot for all of them.
    database.execute(begin)
    try:
        files = [dict(row) for row in database.execute(_FILES)]
        batches = [dict(row) for row in database.execute("SELECT * FROM batch")]
        events = [dict(row) for row in database.execute(_EVENTS)]
        owed = [
            row["file_id"]
            for row in database.execute("SELECT f.file_id FROM owed_deletion AS o JOIN file AS f ON f.id = o.file_row")
        ]
    finally:
        database.execute("ROLLBACK")
    return {
        "files": [vars(of_json(FileView, row)) for row in files],
        "batches": [vars(of_json(BatchView, row)) for row in batches],
        "events": [vars(of_json(EventView, row)) for row in events],
        "change_no": {row["file_id"]: row["change_no"] for row in files}
        | {row["batch_id"]: row["change_no"] for row in batches},
        "owed": owed,
    }


# The fence of a file's newest run, and fence and end of those before it.
_Runs = tuple[int, list[tuple[int, int]]]


def _runs(database: Any) -> dict[str, _Runs]:
    found: dict[str, _Runs] = {}
    for row in database.execute(_RUNS):
        _, ended = found.setdefault(row["file_id"], (row["run_fence"], []))
        if row["fence"] is not None:
            ended.append((row["fence"], row["upto"]))
    return found


# What lies there of each file, by fence: every byte where it lies in the whole file.
_Lying = dict[str, dict[int, bytes]]


def _in_folder(folder: Path) -> _Lying:
    named: _Lying = {}
    for path in folder.glob("*/*"):
        file_id, _, fence = path.name.partition(".")
        # What is missing was deleted since the folder was read.
        with contextlib.suppress(FileNotFoundError):
            named.setdefault(file_id, {})[int(fence or 0)] = path.read_bytes()
    return named


def _in_bucket(bucket: Bucket) -> _Lying:
    """Whole files where there are such, else what lies in pieces."""
    named: dict[str, dict[int, bytes]] = {}
    whole: _Lying = {}
    for key in bucket.objects():
        name = key.removeprefix(bucket.key(""))
        with contextlib.suppress(Exception):  # gone since it was listed
            if (piece := piece_of(name)) is not None:
                before = named.setdefault(piece.file_id, {}).get(piece.fence, b"")
                data = before.ljust(piece.start, b"\0")
                named[piece.file_id][piece.fence] = data[: piece.start] + bucket.read(key) + data[piece.end :]
            elif (fence := fence_of(name)) is not None:
                whole.setdefault(id_in(name), {})[fence] = bucket.read(key)
    for file_id, found in whole.items():
        named.setdefault(file_id, {}).update(found)
    return named


def _disk(
    named: _Lying, files: Iterable[dict[str, Any]], runs: dict[str, _Runs]
) -> Iterable[tuple[str, tuple[int, str, bool]]]:
    """What lies there of each file as its row says, and under its own name whatever its row does not name."""
    rows = {row["file_id"]: row for row in files}
    for file_id, found in named.items():
        row = rows.get(file_id, {"bytes_received": 0, "size_bytes": 0, "status": ""})
        newest, ended = runs.get(file_id, (0, []))
        if row["status"] == "completed":
            data, kept = found.get(newest), {newest}
        elif row["status"] == "uploading":
            data, kept = _joined(found, ended, newest), {newest, *(fence for fence, _ in ended)}
        else:
            data, kept = b"".join(found.values()), set(found)
        if data is not None:
            sent = content_of(file_id, row["size_bytes"])[: row["bytes_received"]]
            yield file_id, (len(data), hashlib.sha256(data).hexdigest(), data.startswith(sent))
        for left in found.keys() - kept:
            yield f"{file_id}.{left}", (len(found[left]), "", True)


def _joined(found: dict[int, bytes], ended: Sequence[Sequence[int]], newest: int) -> bytes:
    """Put together what counts of each run, each byte from where it lies in the whole file."""
    data = b""
    for fence, end in ended:
        data += found.get(fence, b"")[len(data) : end]
    return data + found.get(newest, b"")[len(data) :]


def at_rest(look: Callable[[], Seen], seconds: float) -> dict[str, Any]:
    """Look once no deletion is owed any more; after ``seconds`` as it is. A disk tells nobody when it changes."""
    deadline = time.monotonic() + seconds
    while True:
        tables, stood_still = look()
        gone = {row["file_id"] for row in tables["files"] if row["status"] in {"cancelled", "failed"}}
        if stood_still and not tables["owed"] and not gone & tables["disk"].keys():
            return tables
        if time.monotonic() > deadline:
            return tables
        time.sleep(0.05)


async def all_heard(
    recorder: Recorder, look: Callable[[], Seen], seconds: float, listen: Callable[[], Awaitable[None]]
) -> dict[str, Any]:
    """Have watchers catch up (``listen``) and read everything; again if something changed in between.

    A page that left, a call nobody waits for, an expiry: each may change a row when all looks quiet. What ``probe``
    watches heard of the rows before is forgotten then; the last of a few rounds counts.
    """
    newest = _newest(await asyncio.to_thread(at_rest, look, seconds))
    for _ in range(_ROUNDS):
        await listen()
        tables = await asyncio.to_thread(at_rest, look, seconds)
        before, newest = newest, _newest(tables)
        if newest == before:
            break
        recorder.forget("probe")
    return tables


def _newest(tables: dict[str, Any]) -> int:
    return max(tables["change_no"].values(), default=0)
