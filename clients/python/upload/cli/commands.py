"""The commands that ask about what their ids name, or about the service, and show the answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime

from upload.async_client import AsyncClient
from upload.cancelling import CancelledBatch, CancelledFile
from upload.cli import finding
from upload.cli.arguments import Arguments
from upload.cli.exits import Exit, exit_of, worst
from upload.cli.output import Output, as_json
from upload.cli.texts import clock_text, size_text, visible
from upload.errors import Unavailable, UploadServiceError
from upload.statuses import by_whom


async def cancel(client: AsyncClient, arguments: Arguments, output: Output) -> Exit:
    """Cancel files."""

    async def one(text: str) -> None:
        file_id = await finding.file_id(client, text)
        outcome = await client.cancel(file_id, reason=arguments.reason, request_id=arguments.request_id)
        output.result(as_json(outcome), cancelled_text(outcome))

    return await _each(arguments, output, one)


async def cancel_batch(client: AsyncClient, arguments: Arguments, output: Output) -> Exit:
    """Cancel batches."""

    async def one(text: str) -> None:
        batch_id = await finding.batch_id(client, text)
        outcome = await client.cancel_batch(batch_id, reason=arguments.reason, request_id=arguments.request_id)
        output.result(as_json(outcome), cancelled_batch_text(outcome))

    return await _each(arguments, output, one)


async def delete_content(client: AsyncClient, arguments: Arguments, output: Output) -> Exit:
    """Let go of the bytes of completed files."""

    async def one(text: str) -> None:
        file_id = await finding.file_id(client, text)
        file = await client.delete_content(file_id, reason=arguments.reason, request_id=arguments.request_id)
        output.result(as_json(file), f"Let go of the bytes of {visible(file.filename)} ({file.file_id}).")

    return await _each(arguments, output, one)


async def get(client: AsyncClient, arguments: Arguments, output: Output) -> Exit:
    """Show files or batches."""

    async def one(text: str) -> None:
        if arguments.is_batch:
            output.details(as_json(await client.get_batch(await finding.batch_id(client, text))))
        else:
            output.details(as_json(await client.get(await finding.file_id(client, text))))

    return await _each(arguments, output, one)


async def _each(arguments: Arguments, output: Output, one: Callable[[str], Awaitable[None]]) -> Exit:
    """Deal with each id; one that fails does not keep the others from their turn, a server that is away does."""
    output.many = len(arguments.ids) > 1 or arguments.ids_from_stdin
    codes: list[Exit] = []
    for text in arguments.every_id:
        try:
            await one(text)
        except (UploadServiceError, finding.AmbiguousId) as error:
            output.error(error)
            codes.append(exit_of(error))
            if isinstance(error, Unavailable):
                break
    return worst(codes)


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
    return f" at {clock_text(outcome.cancelled_at)} UTC {by_whom(outcome.cancelled_by)}{why}"


async def stats(client: AsyncClient, arguments: Arguments, output: Output) -> Exit:
    """Count files and batches."""
    counted = await client.statistics(window=arguments.window, step=arguments.step)
    lines = [f"files    {one.status:<10}  {one.files:>9}  {size_text(one.size_bytes):>11}" for one in counted.files]
    lines += [f"batches  {one.status:<10}  {one.batches:>9}" for one in counted.batches]
    lines.append(f"cancels  {'too late':<10}  {counted.cancels_too_late:>9}  since {_utc(counted.counted_since)}")
    lines += [
        f"{_utc(one.start_at)}  {one.begun} begun, {one.completed} completed, {one.cancelled} cancelled, "
        f"{one.failed} failed, {one.cancels_too_late} cancels too late"
        for one in counted.buckets
    ]
    if output.format == "table":
        for line in lines:
            output.result({}, line)
    else:
        output.result(as_json(counted), "")
    return Exit.OK


def _utc(moment: datetime) -> str:
    return f"{clock_text(moment)} UTC"


async def whoami(client: AsyncClient, _: Arguments, output: Output) -> Exit:
    """Show who calls."""
    output.details(as_json(await client.caller()))
    return Exit.OK
