"""``uploadctl watch``: states and changes as they come."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime

from upload.async_client import AsyncClient
from upload.cli.arguments import Arguments
from upload.cli.exits import Exit, worst
from upload.cli.output import Output, as_json, batch_line, file_line, size_text
from upload.v1 import upload_pb2 as pb

_FILE_EXITS = {pb.UPLOAD_STATUS_CANCELLED: Exit.CANCELLED, pb.UPLOAD_STATUS_FAILED: Exit.FAILED}
_BATCH_EXITS = {pb.BATCH_STATUS_CANCELLED: Exit.CANCELLED, pb.BATCH_STATUS_FAILED: Exit.FAILED}


async def watch(client: AsyncClient, arguments: Arguments, output: Output) -> Exit:
    """Show states and changes until interrupted, or until all are final."""
    lines = output if output.terminal else Output(json_lines=True)
    codes = {Exit.OK}
    events = client.watch(
        arguments.ids,
        batch_ids=arguments.batches,
        include_batch_files=bool(arguments.batches),
        all=arguments.all,
        until_final=arguments.until_final,
        progress_interval=arguments.progress,
        resume_token=arguments.resume_token,
    )
    async with aclosing(events):
        if arguments.table and output.terminal:
            await _show_table(events, codes)
        else:
            async for event in events:
                _show(event, lines)
                codes.add(_exit_of(event))
    return worst(codes)


async def _show_table(events: AsyncIterator[pb.WatchStatusResponse], codes: set[Exit]) -> None:
    # Imported here: only this and the progress bars need the extra `cli`.
    from upload.cli.table import WatchTable  # noqa: PLC0415

    table = WatchTable()
    with table.live():
        async for event in events:
            table.show(event)
            codes.add(_exit_of(event))


def _exit_of(event: pb.WatchStatusResponse) -> Exit:
    match event.WhichOneof("event"):
        case "file":
            return _FILE_EXITS.get(event.file.status, Exit.OK)
        case "batch":
            return _BATCH_EXITS.get(event.batch.status, Exit.OK)
    return Exit.OK


def _show(event: pb.WatchStatusResponse, output: Output) -> None:
    kind = event.WhichOneof("event")
    match kind:
        case "file":
            text, record = f"file   {file_line(event.file)}", as_json(event.file)
        case "batch":
            text, record = f"batch  {batch_line(event.batch)}", as_json(event.batch)
        case "progress":
            received = size_text(event.progress.bytes_received)
            text, record = f"file   {event.progress.file_id}  {received} received", as_json(event.progress)
        case "bookmark" if event.bookmark.resynced:
            text, record = "The server's store is another one now; its current state is shown.", {"resynced": True}
        case _:
            return
    clock = datetime.now(UTC).astimezone().strftime("%H:%M:%S")
    output.result({str(kind): record, "resume_token": event.resume_token}, f"{clock}  {text}")
