"""``uploadctl watch``: states and changes as they come."""

from __future__ import annotations

import importlib.util
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime

from upload import errors
from upload.async_client import AsyncClient
from upload.cli import finding
from upload.cli.arguments import Arguments
from upload.cli.exits import Exit, worst
from upload.cli.output import Output, as_json
from upload.cli.texts import batch_line, file_line, size_text
from upload.records import WatchEvent

_EXITS = {"cancelled": Exit.CANCELLED, "failed": Exit.FAILED}
# How often the live table moves.
_TABLE_SECONDS = 1.0


async def watch(client: AsyncClient, arguments: Arguments, output: Output) -> Exit:
    """Show states and changes until interrupted, or until all are final."""
    # One document has an end.
    output.format = "jsonl" if output.format == "json" else output.format
    output.many = True
    in_table = arguments.table and output.terminal and importlib.util.find_spec("rich") is not None
    pace = _TABLE_SECONDS if arguments.progress is None and in_table else arguments.progress or 0.0
    codes = {Exit.OK}
    token = arguments.resume_token
    events = client.watch(
        [await finding.file_id(client, text) for text in arguments.every_id],
        batch_ids=[await finding.batch_id(client, text) for text in arguments.batches],
        include_batch_files=bool(arguments.batches),
        all=arguments.all,
        until_final=arguments.until_final,
        progress_interval=pace,
        resume_token=token,
        patience=arguments.patience,
    )
    try:
        async with aclosing(events):
            shown = _in_table(events) if in_table else _in_lines(events, output)
            async for event in shown:
                token = event.resume_token
                record = event.file or event.batch
                codes.add(_EXITS.get(record.status if record else "", Exit.OK))
    except errors.Unavailable:
        if token:
            output.note("resumable", f"It can go on where it broke: --resume-token {token}", resume_token=token)
        raise
    return worst(codes)


async def _in_table(events: AsyncIterator[WatchEvent]) -> AsyncIterator[WatchEvent]:
    # Imported here: only this and the progress bars need the extra `cli`.
    from upload.cli.table import WatchTable  # noqa: PLC0415

    table = WatchTable()
    with table.live():
        async for event in events:
            table.show(event)
            yield event


async def _in_lines(events: AsyncIterator[WatchEvent], output: Output) -> AsyncIterator[WatchEvent]:
    async for event in events:
        _show(event, output)
        yield event


def _show(event: WatchEvent, output: Output) -> None:
    record: object
    if event.file:
        text, record = f"file   {file_line(event.file)}", as_json(event.file)
    elif event.batch:
        text, record = f"batch  {batch_line(event.batch)}", as_json(event.batch)
    elif event.progress:
        received = size_text(event.progress.bytes_received)
        text, record = f"file   {event.progress.file_id}  {received} received", as_json(event.progress)
    elif event.bookmark and event.bookmark.resynced:
        text, record = "The server's store is another one now; its current state is shown.", {"resynced": True}
    else:
        return
    clock = datetime.now(UTC).astimezone().strftime("%H:%M:%S")
    output.result({event.kind: record, "resume_token": event.resume_token}, f"{clock}  {text}")
