"""Decides what the operator's commands do with an installation: `check`, `audit verify`, `audit export`,
`backup`, `copy`, `nodes`, `token`, `adopt`.

Like start.py a place where parts are put together; nothing here serves callers. Exit codes: 0 all is well, 1 something
is wrong, 2 it could not be looked at.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import stat
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from upload_server import __version__
from upload_server.access.identity import fits_a_principal
from upload_server.access.tokens_file import TokensFileUnusable, append, make
from upload_server.config import DATABASE_NAME, Config
from upload_server.domain.errors import CannotStart
from upload_server.process.files import refuse_strangers_link
from upload_server.sink.open import open_sink
from upload_server.sink.protocol import NoRoom, SinkError
from upload_server.store.inspection import CannotAdopt, Damaged, NodeFacts
from upload_server.store.lock import lock_directory
from upload_server.store.open import StoreAt, store_at
from upload_server.upkeep.audit.export import lines
from upload_server.upkeep.audit.verify import Expected, Verdict, verify
from upload_server.upkeep.backup import back_up
from upload_server.upkeep.check.findings import Report
from upload_server.upkeep.check.mend import mend
from upload_server.upkeep.check.output import as_json, as_lines
from upload_server.upkeep.check.run import CheckOptions, check
from upload_server.upkeep.copying import CannotCopy, Storages, copy_bytes, copy_rows, refuse_unfit

EXIT_FINE = 0
EXIT_WRONG = 1
EXIT_UNUSABLE = 2


class NothingThere(CannotStart):
    """There is no installation where one was looked for."""


def run(command: str, config: Config, options: Mapping[str, Any]) -> int:
    """Run a command; returns its exit code. What cannot be looked at is said on standard error."""
    try:
        if command == "check":
            return _check(config, options)
        if command == "backup":
            return _back_up(config, options)
        if command == "copy":
            return _copy(options)
        if command == "nodes":
            return _nodes(config, options)
        if command == "adopt":
            return _adopt(config, options)
        if command == "token":
            return _create_token(config, options)
        if options["audit_command"] == "verify":
            return _verify(config, options)
        return _export(config, options)
    except BrokenPipeError:
        # Whoever read our output has left: there is nobody to tell, and nothing more to flush at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_UNUSABLE
    except (CannotStart, Damaged, SinkError, OSError) as error:
        # The only bytes that these commands store are copies.
        where = "the disk of the copy has no room for more: " if isinstance(error, NoRoom) else ""
        sys.stderr.write(f"upload-server: {where}{error}\n")
        return EXIT_UNUSABLE


class CannotSay(CannotStart):
    """What a command has done or found cannot be written to standard output."""


def _say(lines: Iterable[str]) -> None:
    """Write lines to standard output; raises ``CannotSay``."""
    try:
        for line in lines:
            sys.stdout.write(line + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        # Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise CannotSay(f"what there is to say cannot be written to standard output: {error.strerror}") from error


def _store(config: Config) -> StoreAt:
    found = store_at(config.url)
    if not found.exists:
        raise NothingThere(f"there is no database at {found}; --data-dir names the installation")
    return found


def _check(config: Config, options: Mapping[str, Any]) -> int:
    store = _store(config)
    sink = open_sink(config.sink_url)
    repair = options["repair"]
    if options["delete_unknown"] and not repair:
        sys.stderr.write("upload-server: --delete-unknown needs --repair\n")
        return EXIT_UNUSABLE
    with contextlib.ExitStack() as held:
        if repair:
            # Nobody may work on what is mended: both locks, as the service takes them.
            for lock in (lock_directory(config.data_dir), store.lock()):
                held.callback(lock.release)
        running = not repair and bool(store.holder())
        inspection = held.enter_context(contextlib.closing(store.inspect()))
        report = check(inspection, sink, CheckOptions(running, options["hashes"]))
        if repair:
            mending = store.mend()
            try:
                mend(report, inspection, mending, sink, delete_unknown=options["delete_unknown"])
            finally:
                # First the reader: the log can then be brought into the file.
                inspection.close()
                mending.close()
    _show_report(report, json_wanted=options["json"])
    return EXIT_WRONG if report.open_findings else EXIT_FINE


def _show_report(report: Report, *, json_wanted: bool) -> None:
    _say([as_json(report)] if json_wanted else as_lines(report))


def _verify(config: Config, options: Mapping[str, Any]) -> int:
    pruned = [Path(path) for path in options["pruned"] or ()]
    expected = Expected(dict(options["anchor"] or ()), options["expect_head"] or "", pruned)
    with contextlib.closing(_store(config).inspect()) as inspection:
        verdict = verify(inspection, expected)
    _say([json.dumps(_verdict_fields(verdict))] if options["json"] else _verdict_lines(verdict))
    return EXIT_WRONG if verdict.broken else EXIT_FINE


def _verdict_lines(verdict: Verdict) -> Iterator[str]:
    if verdict.broken is not None:
        yield f"BROKEN {verdict.broken.what}: {verdict.broken.text}"
        if verdict.head is not None:
            yield f"up to there {verdict.sealed} events are as they were sealed, the last is {verdict.head.event_id}"
        return
    if verdict.pruned:
        yield f"{verdict.pruned} exported events are as they were sealed, and lead to event {verdict.begins_behind}"
    elif verdict.begins_behind:
        yield f"the trail begins behind event {verdict.begins_behind}; --pruned names the folder of what was before it"
    yield f"{verdict.sealed} events are as they were sealed"
    if verdict.unsealed:
        ends = f"{verdict.first_unsealed} to {verdict.last_unsealed}"
        yield f"{verdict.unsealed} events are not sealed yet ({ends}): nothing can be said of them"
    if verdict.head is not None:
        yield f"keep elsewhere: --anchor {_anchor(verdict)}"


def _anchor(verdict: Verdict) -> str:
    return f"{verdict.head.event_id}:{verdict.head.hash.hex()}" if verdict.head else ""


def _verdict_fields(verdict: Verdict) -> dict[str, object]:
    broken = verdict.broken
    return {
        "ok": broken is None,
        "begins_behind": str(verdict.begins_behind or ""),
        "pruned": verdict.pruned,
        "sealed": verdict.sealed,
        "unsealed": verdict.unsealed,
        "first_unsealed": str(verdict.first_unsealed or ""),
        "last_unsealed": str(verdict.last_unsealed or ""),
        "anchor": _anchor(verdict),
        "broken": broken and {"event_id": str(broken.event_id), "what": broken.what.value, "text": broken.text},
    }


def _export(config: Config, options: Mapping[str, Any]) -> int:
    with contextlib.ExitStack() as held:
        inspection = held.enter_context(contextlib.closing(_store(config).inspect()))
        target: BinaryIO = sys.stdout.buffer
        if options["output"]:
            target = held.enter_context(_private(options["output"]))
        for line in lines(inspection, options["after"]):
            target.write(line)
        target.flush()
    return EXIT_FINE


def _private(path: str) -> BinaryIO:
    """Open a file for writing that its owner alone may read, also one that was there: names of people are in it."""
    refuse_strangers_link(Path(path))
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        found = os.fstat(descriptor)
        # A pipe or a device keeps its mode.
        if stat.S_ISREG(found.st_mode):
            if found.st_nlink > 1:
                raise OSError(errno.EMLINK, "has another name (a hard link), so it may be somebody else's", path)
            os.fchmod(descriptor, 0o600)
            os.ftruncate(descriptor, 0)
    except BaseException:
        os.close(descriptor)
        raise
    return os.fdopen(descriptor, "wb")


def _nodes(config: Config, options: Mapping[str, Any]) -> int:
    store = _store(config)
    holder = store.holder()
    with contextlib.closing(store.inspect()) as inspection:
        nodes = inspection.nodes()
    if options["json"]:
        found = [{**asdict(node), "lives": bool(node.lives), "leads": bool(node.leads)} for node in nodes]
        _say([json.dumps({"running": bool(holder), "nodes": found})])
    else:
        _say(_node_lines(nodes, holder))
    return EXIT_FINE


def _node_lines(nodes: Sequence[NodeFacts], holder: str) -> Iterator[str]:
    living = [node for node in nodes if node.lives]
    if not living:
        yield f"no nodes: one server has the store to itself (pid {holder})" if holder else "no nodes: no server runs"
    for node in living:
        started = datetime.fromtimestamp(node.started_at, UTC).isoformat().replace("+00:00", "Z")
        yield (
            f"{node.node_id}  {node.address}  {node.version}  since {started}  {node.uploads} uploads"
            f"{'  leads' if node.leads else ''}"
        )
    dead = [node for node in nodes if not node.lives]
    if dead:
        yield f"{len(dead)} that died are remembered for an hour; they held {sum(n.uploads for n in dead)} uploads"


def _create_token(config: Config, options: Mapping[str, Any]) -> int:
    if not config.tokens_file:
        sys.stderr.write("upload-server: --tokens-file: name the file that the token's hash is appended to\n")
        return EXIT_UNUSABLE
    path = Path(config.tokens_file)
    try:
        token, line = make(options["name"], options["role"], options["expires"], datetime.now(UTC), options["quota"])
        append(path, line)
    except (ValueError, TokensFileUnusable) as error:
        where = f"{path}: " if isinstance(error, TokensFileUnusable) else ""
        sys.stderr.write(f"upload-server: {where}{error}\n")
        return EXIT_UNUSABLE
    try:
        _say([token])
    except (CannotSay, BrokenPipeError) as error:
        raise CannotSay(f"{error}; nobody has seen the token: take the line {line.split()[0]} out of {path}") from error
    return EXIT_FINE


def _adopt(config: Config, options: Mapping[str, Any]) -> int:
    owner = options["owner"]
    if not fits_a_principal(owner):
        raise CannotAdopt(f"--owner: {owner!r} is no name of a principal")
    store = _store(config)
    with contextlib.ExitStack() as held:
        for lock in (lock_directory(config.data_dir), store.lock()):
            held.callback(lock.release)
        mending = held.enter_context(contextlib.closing(store.mend()))
        adopted = mending.adopt(owner, batch_id=options["batch"] or "", file_id=options["file"] or "")
    _say([f"{owner} owns {adopted.files} files, {adopted.batches} batches and {adopted.answers} stored answers more"])
    return EXIT_FINE


def _back_up(config: Config, options: Mapping[str, Any]) -> int:
    folder, store, sink = Path(options["to"]), store_at(config.url), open_sink(config.sink_url)
    # A database that lies on a server of its own refuses, whether it answers or not.
    if store.folder is not None:
        store = _store(config)
        _refuse_within(folder, (config.data_dir, store.folder))

    def storages_for(there: Path) -> Storages:
        return Storages(sink, open_sink(there.absolute().as_uri()))

    made = back_up(store.copy_to, storages_for, folder, DATABASE_NAME, __version__)
    if options["json"]:
        fields = {"files": made.files, "bytes": made.size_bytes, "damaged": made.damaged}
        _say([json.dumps({**json.loads(as_json(made.report)), **fields})])
    else:
        _say(f"WRONG at its source: {text}" for text in made.damaged)
        _say(as_lines(made.report))
        _say([f"{folder} has the bytes of {made.files} files: {made.size_bytes} bytes"])
    return EXIT_WRONG if made.report.open_findings or made.damaged else EXIT_FINE


def _refuse_within(folder: Path, places: Iterable[Path | None]) -> None:
    for place in places:
        if place is not None and folder.resolve().is_relative_to(place.resolve()):
            raise CannotCopy(f"--to: {folder} lies in {place}, of which it would be a copy; name a place elsewhere")


def _copy(options: Mapping[str, Any]) -> int:
    source, destination = store_at(options["copy_from"]), store_at(options["copy_to"])
    if str(source) == str(destination):
        raise CannotCopy("--from and --to are the same store")
    if not source.exists:
        raise NothingThere(f"--from: there is no database at {source}")
    storages = _storages(source, options)
    if destination.folder is not None and not destination.exists:
        asyncio.run(destination.migrate())
    if not destination.exists:
        raise NothingThere(f"--to: there is no schema at {destination}; run `upload-server migrate` first")
    with contextlib.ExitStack() as held:
        for store in (source, destination):
            held.callback(store.lock().release)
        looked = held.enter_context(contextlib.closing(source.inspect()))
        with contextlib.closing(destination.inspect()) as there:
            refuse_unfit(looked, there)
        if storages is not None:
            copied = copy_bytes(looked, storages)
            _say([f"copied the bytes of {copied['files']} files: {copied['bytes']} bytes"])
            looked.refresh()
        with contextlib.closing(destination.fill()) as filling:
            rows = copy_rows(looked, filling)
    _say([f"copied {', '.join(f'{count} of {table}' for table, count in rows.items() if count)}"])
    return EXIT_FINE


def _storages(source: StoreAt, options: Mapping[str, Any]) -> Storages | None:
    """Return where bytes are to be copied from and to, None when they stay."""
    lies, goes = options["from_storage"], options["to_storage"]
    if goes is None:
        if lies is not None:
            raise CannotCopy("--from-storage needs --to-storage; without both the bytes stay where they are")
        return None
    if lies is None:
        if source.folder is None:
            raise CannotCopy("--from-storage: say where the bytes lie, as file:///path/to/folder")
        lies = (source.folder / "bytes").absolute().as_uri()
    if lies == goes:
        raise CannotCopy("--from-storage and --to-storage are the same; without both the bytes stay where they are")
    return Storages(open_sink(lies), open_sink(goes))
