"""The commands that list: files, batches, the audit trail, newest first; ``--watch`` then goes on with changes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import TypeVar

from upload.async_client import AsyncClient
from upload.cli import finding
from upload.cli.arguments import Arguments
from upload.cli.exits import Exit
from upload.cli.output import Output, as_json
from upload.cli.texts import AUDIT_HEAD, BATCH_HEAD, FILE_HEAD, audit_line, batch_line, file_line
from upload.filters import Filters
from upload.records import AuditEvent, Batch, File

_PAGE = 1000
R = TypeVar("R", File, Batch, AuditEvent)


async def list_files(client: AsyncClient, arguments: Arguments, output: Output) -> Exit:
    """List files."""
    token = await _token(client, arguments, output)
    batch_id = await finding.batch_id(client, arguments.batch)
    found = client.list_files(
        statuses=arguments.statuses,
        batch_id=batch_id,
        order_by=_order(arguments, "created_at"),
        page_size=_page(arguments),
        **_filters(arguments),
    )
    output.head(FILE_HEAD)
    await _show(found, arguments, output, file_line)
    if token:
        await _follow(client, arguments, output, token, batch_id)
    return Exit.OK


async def list_batches(client: AsyncClient, arguments: Arguments, output: Output) -> Exit:
    """List batches."""
    token = await _token(client, arguments, output)
    found = client.list_batches(
        statuses=arguments.statuses,
        order_by=_order(arguments, "created_at"),
        page_size=_page(arguments),
        **_filters(arguments),
    )
    output.head(BATCH_HEAD)
    await _show(found, arguments, output, batch_line)
    if token:
        await _follow(client, arguments, output, token, "")
    return Exit.OK


async def audit(client: AsyncClient, arguments: Arguments, output: Output) -> Exit:
    """List changes of status."""
    times = {"occurred_after": arguments.since, "occurred_before": arguments.until}
    found = client.audit(
        file_id=await finding.file_id(client, arguments.file),
        batch_id=await finding.batch_id(client, arguments.batch),
        order_by=_order(arguments, "event_id"),
        page_size=_page(arguments),
        owner=arguments.owner,
        actor=arguments.actor,
        source=arguments.source,
        to_status=arguments.to_status,
        **{name: time for name, time in times.items() if time},
    )
    output.head(AUDIT_HEAD)
    await _show(found, arguments, output, audit_line)
    return Exit.OK


async def _show(found: AsyncIterator[R], arguments: Arguments, output: Output, line: Callable[[R], str]) -> None:
    output.many = True
    shown = 0
    async for record in found:
        if arguments.limit and shown == arguments.limit:
            more = f"There are more than {shown}: --limit N shows more, --limit 0 all"
            output.note("more", f"{more}, --since 1h fewer.", shown=shown)
            return
        output.result(as_json(record), line(record))
        shown += 1


async def _token(client: AsyncClient, arguments: Arguments, output: Output) -> str:
    """Return from where a watch goes on after the list, if one was asked for: what is listed comes later."""
    if not arguments.follow:
        return ""
    if output.format == "json":
        # One document has an end.
        output.format = "jsonl"
    return (await client.statistics()).resume_token


async def _follow(client: AsyncClient, arguments: Arguments, output: Output, token: str, batch_id: str) -> None:
    """Show changes after ``token`` of what passes the filters."""
    events = client.watch(all=True, owner=arguments.owner, resume_token=token)
    async with aclosing(events):
        async for event in events:
            record = event.file if arguments.command == "list" else event.batch
            if record is None or not _passes(record, arguments, batch_id):
                continue
            text = file_line(record) if isinstance(record, File) else batch_line(record)
            output.result(as_json(record), text)


def _passes(record: File | Batch, arguments: Arguments, batch_id: str) -> bool:
    """Whether a list would have it now; a batch says nothing of its files' names."""
    name = record.filename if isinstance(record, File) else arguments.filename_prefix
    return (
        (not arguments.statuses or record.status in arguments.statuses)
        and (not batch_id or (isinstance(record, File) and record.batch_id == batch_id))
        and name.startswith(arguments.filename_prefix)
        and arguments.cancelled_by in {"", record.cancelled_by}
        and (not arguments.since or record.created_at > arguments.since)
    )


def _filters(arguments: Arguments) -> Filters:
    filters: Filters = {
        "owner": arguments.owner,
        "filename_prefix": arguments.filename_prefix,
        "cancelled_by": arguments.cancelled_by,
    }
    if arguments.since:
        filters["created_after"] = arguments.since
    if arguments.until:
        filters["created_before"] = arguments.until
    if arguments.updated_since:
        filters["updated_after"] = arguments.updated_since
    return filters


def _order(arguments: Arguments, name: str) -> str:
    return name if arguments.oldest else f"{name} desc"


def _page(arguments: Arguments) -> int:
    return min(arguments.limit + 1, _PAGE) if arguments.limit else _PAGE
