"""The commands that ask once and show the answer."""

from __future__ import annotations

from upload.async_client import AsyncClient
from upload.cancelling import CancelledBatch, CancelledFile
from upload.cli.arguments import Arguments
from upload.cli.exits import Exit
from upload.cli.output import Output, as_json, audit_line, file_line, outcome_json, visible
from upload.statuses import by_whom

_PAGE = 1000


async def cancel(client: AsyncClient, arguments: Arguments, output: Output) -> Exit:
    """Cancel a file."""
    outcome = await client.cancel(arguments.id, reason=arguments.reason, request_id=arguments.request_id)
    output.result(outcome_json(outcome), cancelled_text(outcome))
    return Exit.OK


async def cancel_batch(client: AsyncClient, arguments: Arguments, output: Output) -> Exit:
    """Cancel a batch."""
    outcome = await client.cancel_batch(arguments.id, reason=arguments.reason, request_id=arguments.request_id)
    output.result(outcome_json(outcome), cancelled_batch_text(outcome))
    return Exit.OK


def cancelled_text(outcome: CancelledFile) -> str:
    """Say that a file is cancelled, and by whom if it was not us."""
    if outcome.already:
        return f"{visible(outcome.filename)} ({outcome.file_id}) was already cancelled{_past(outcome)}."
    return f"Cancelled {visible(outcome.filename)} ({outcome.file_id})."


def cancelled_batch_text(outcome: CancelledBatch) -> str:
    """Say that a batch is cancelled, and by whom if it was not us."""
    if outcome.already:
        return f"Batch {outcome.batch_id} was already cancelled{_past(outcome)}."
    return (
        f"Cancelled batch {outcome.batch_id}: {outcome.cancelled_files_count} of "
        f"{outcome.total_files_in_batch} files were stopped, the others were final before."
        if outcome.cancelled_files_count < outcome.total_files_in_batch
        else f"Cancelled batch {outcome.batch_id}: all {outcome.total_files_in_batch} files."
    )


def _past(outcome: CancelledFile | CancelledBatch) -> str:
    why = f" ({visible(outcome.cancel_reason)})" if outcome.cancel_reason else ""
    return f" at {outcome.cancelled_at:%Y-%m-%d %H:%M:%S} UTC {by_whom(outcome.cancelled_by)}{why}"


async def get(client: AsyncClient, arguments: Arguments, output: Output) -> Exit:
    """Show one file or batch."""
    found = await (client.get_batch if arguments.is_batch else client.get)(arguments.id)
    output.details(as_json(found))
    return Exit.OK


async def list_files(client: AsyncClient, arguments: Arguments, output: Output) -> Exit:
    """List files."""
    size = min(arguments.limit or _PAGE, _PAGE)
    shown = 0
    order = "created_at desc" if arguments.newest else ""
    found = client.list_files(status=arguments.status, batch_id=arguments.batch, order_by=order, page_size=size)
    async for file in found:
        output.result(as_json(file), file_line(file))
        shown += 1
        if shown == arguments.limit:
            break
    return Exit.OK


async def audit(client: AsyncClient, arguments: Arguments, output: Output) -> Exit:
    """List changes of status."""
    size = min(arguments.limit or _PAGE, _PAGE)
    shown = 0
    async for event in client.audit(file_id=arguments.file, batch_id=arguments.batch, page_size=size):
        output.result(as_json(event), audit_line(event))
        shown += 1
        if shown == arguments.limit:
            break
    return Exit.OK
