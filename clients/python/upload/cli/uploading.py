"""``uploadctl upload``: sends a file or a batch; Ctrl-C, SIGTERM and SIGHUP cancel it on the server."""

from __future__ import annotations

import asyncio
import mimetypes
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from upload import errors
from upload.async_client import AsyncClient
from upload.batching import helpful_jobs
from upload.cli import finding
from upload.cli.arguments import Arguments
from upload.cli.commands import cancelled_batch_text, cancelled_text
from upload.cli.display import Display, make_display
from upload.cli.exits import Exit, exit_of, worst
from upload.cli.interrupt import Interrupt, on_interrupt
from upload.cli.output import Output, as_json, error_json
from upload.cli.texts import batch_line, file_line, sentence, size_text, visible
from upload.plan import MAX_BATCH_FILES, Item, Plan, PlanError, plan
from upload.records import File
from upload.v1 import upload_pb2 as pb

# After a cancel the server tells the streams; whoever has not heard it by then is not waited for.
_STOP_SECONDS = 5.0


async def upload(client: AsyncClient, arguments: Arguments, output: Output) -> Exit:
    """Send what the paths name: a file alone, a batch, or several batches where there are more than one takes."""
    paths = [arguments.stdin_copy] if arguments.stdin_copy else arguments.paths
    planned = await asyncio.to_thread(plan, paths, arguments.name)
    output.many, output.must_show = planned.batch, False
    for skipped in planned.skipped:
        text = f"Skipped: {visible(str(skipped.path))} {skipped.why}."
        output.note("skipped", text, path=str(skipped.path), why=skipped.why)
    codes = [Exit.FAILED for skipped in planned.skipped if skipped.is_file]
    with on_interrupt() as interrupt:
        codes.append(await _send(client, arguments, output, planned, interrupt))
    return worst(codes)


async def _send(client: AsyncClient, arguments: Arguments, output: Output, planned: Plan, interrupt: Interrupt) -> Exit:
    """Announce and send batch after batch."""
    codes: list[Exit] = []
    job: Job | None = None
    rest = planned.items
    try:
        while rest and not interrupt.asked:
            job, rest = await _announce(client, arguments, output, planned, rest, is_first=job is None)
            run = _Run(client, arguments, output, job)
            codes.append(await run.finish(interrupt))
            # Its resumption goes on with the rest: sent now, that would be sent twice.
            if run.hopeless or run.resumable:
                break
    except asyncio.CancelledError:
        look = job.look if job else "uploadctl list"
        output.note("left", f"Left without an answer; what became of it: {look}", command=look)
        return interrupt.exit
    if rest:
        output.note("unannounced", f"{len(rest)} files further on were not announced.", files=len(rest))
    return worst(codes)


@dataclass(slots=True)
class Job:
    """What was announced: ``ids`` in the order of ``items``; ``batch_id`` is empty for a file alone."""

    items: tuple[Item, ...]
    ids: tuple[str, ...]
    paths: Sequence[Path]
    batch_id: str = ""
    # Nobody has sent to them before.
    is_new: bool = False
    codes: list[Exit] = field(default_factory=list)

    @property
    def look(self) -> str:
        """The command that tells how it stands."""
        return f"uploadctl get --batch {self.batch_id}" if self.batch_id else f"uploadctl get {self.ids[0]}"

    @property
    def resume(self) -> str:
        """The command that goes on with it."""
        option = f"--resume-batch {self.batch_id}" if self.batch_id else f"--resume {self.ids[0]}"
        return f"uploadctl upload {shlex.join(map(str, self.paths))} {option}"


async def _announce(
    client: AsyncClient,
    arguments: Arguments,
    output: Output,
    planned: Plan,
    items: tuple[Item, ...],
    *,
    is_first: bool,
) -> tuple[Job, tuple[Item, ...]]:
    """Announce as many items as go together; returns them, and those that are left for later."""
    kind = arguments.content_type
    if arguments.resume_batch and is_first:
        return await _found_again(client, arguments, output, items)
    if planned.batch:
        return await _announce_batch(client, arguments, output, items)
    if arguments.resume:
        return Job(items, (await finding.file_id(client, arguments.resume),), arguments.paths), ()
    file = await client.initiate(
        items[0].name, items[0].size_bytes, content_type=kind or _guess(items[0].name), sha256=arguments.sha256
    )
    return Job(items, (file.file_id,), arguments.paths, is_new=True), ()


async def _announce_batch(
    client: AsyncClient, arguments: Arguments, output: Output, items: tuple[Item, ...]
) -> tuple[Job, tuple[Item, ...]]:
    now, later = items[:MAX_BATCH_FILES], items[MAX_BATCH_FILES:]
    specs = [
        pb.FileSpec(
            filename=item.name, size_bytes=item.size_bytes, content_type=arguments.content_type or _guess(item.name)
        )
        for item in now
    ]
    try:
        answer = await client.initiate_batch(specs)
    except errors.InvalidField as error:
        # The server speaks of places in the request: people know paths.
        place = re.search(r"files\[(\d+)\]", error.message)
        if place is None:
            raise
        raise PlanError(f"{now[int(place[1])].path}: {error.message}") from None
    batch_id = answer.batch.batch_id
    size = sum(item.size_bytes for item in now)
    text = f"Uploading {len(now)} files ({size_text(size)}) as batch {batch_id}"
    output.note("announced", text, batch_id=batch_id, files=len(now), size_bytes=size)
    return Job(now, answer.file_ids, arguments.paths, batch_id, is_new=True), later


async def _found_again(
    client: AsyncClient, arguments: Arguments, output: Output, items: tuple[Item, ...]
) -> tuple[Job, tuple[Item, ...]]:
    """Match the paths with the files of a batch announced before, by name; leave out what is completed.

    A name that several files of the batch carry is refused: bytes of one source could end up in another's file. A full
    batch is one of several of its folder: what comes after its files was not announced yet, and follows.
    """
    batch_id = await finding.batch_id(client, arguments.resume_batch)
    batch = await client.get_batch(batch_id)
    known: dict[str, File] = {}
    twins: set[str] = set()
    async for file in client.list_files(batch_id=batch_id, page_size=1000):
        if file.filename in known:
            twins.add(file.filename)
        known[file.filename] = file
    places = [place for place, item in enumerate(items) if item.name in known]
    if not places:
        raise PlanError(f"None of {', '.join(map(str, arguments.paths))} is among the files of batch {batch_id}")
    end = places[-1] + 1 if batch.total_files == MAX_BATCH_FILES else len(items)
    ours = [items[place] for place in places]
    for item in ours:
        if item.name in twins:
            raise PlanError(
                f"{item.path}: several files of the batch are called {item.name}; send each by its id: --resume FILE_ID"
            )
    if left := [item for item in items[:end] if item.name not in known]:
        shown = ", ".join(visible(item.name) for item in left[:3]) + (", …" if len(left) > 3 else "")  # noqa: PLR2004
        text = f"Left out, since a batch takes no further files: {len(left)} that are not among its files ({shown})."
        output.note("left_out", text, files=len(left))
    still = [item for item in ours if known[item.name].status != "completed"]
    job = Job(tuple(still), tuple(known[item.name].file_id for item in still), arguments.paths, batch_id)
    return job, items[end:]


def _guess(name: str) -> str:
    return mimetypes.guess_type(name)[0] or ""


class _Run:
    """One job under way."""

    def __init__(self, client: AsyncClient, arguments: Arguments, output: Output, job: Job) -> None:
        self._client = client
        self._arguments = arguments
        self._output = output
        self._job = job
        # Set when there is no point in starting further files.
        self.hopeless = False
        # Set when something broke that another try may cure.
        self.resumable = False

    async def finish(self, interrupt: Interrupt) -> Exit:
        """Send everything, or deal with a signal to stop."""
        sending = asyncio.create_task(self._send_all())
        asked = asyncio.create_task(interrupt.wait())
        try:
            await asyncio.wait({sending, asked}, return_when=asyncio.FIRST_COMPLETED)
            if sending.done() or not interrupt.asked:
                return await self._sum_up(await sending)
            return await self._stop(sending, interrupt.exit)
        finally:
            for task in (sending, asked):
                task.cancel()
            await asyncio.gather(sending, asked, return_exceptions=True)

    async def _send_all(self) -> Exit:
        job, arguments = self._job, self._arguments
        queue = iter(zip(job.items, job.ids, strict=True))
        sizes = [item.size_bytes for item in job.items]
        total, jobs = sum(sizes), arguments.jobs or helpful_jobs(sizes)
        with make_display(self._output, total, len(job.items), arguments.progress) as display:

            async def work() -> None:
                for item, file_id in queue:
                    if self.hopeless:
                        return
                    job.codes.append(await self._send(item, file_id, display))

            try:
                async with asyncio.TaskGroup() as group:
                    for _ in range(min(jobs, len(job.items))):
                        group.create_task(work())
            except ExceptionGroup as failures:
                # Errors of the uploads are dealt with one by one; this is a closed pipe, or a bug.
                raise failures.exceptions[0] from None
        return worst(job.codes)

    async def _send(self, item: Item, file_id: str, display: Display) -> Exit:
        display.start(item, file_id)
        try:
            file = await self._client.upload(
                item.path,
                size_bytes=item.size_bytes if self._job.is_new else None,
                checksum=not self._arguments.no_checksum,
                resume_file_id=file_id,
                is_new=self._job.is_new,
                on_progress=display.update,
            )
        except (errors.UploadServiceError, OSError) as error:
            await self._failed(item, file_id, error)
            return exit_of(error)
        finally:
            display.end(file_id, item.size_bytes)
        self._output.result(as_json(file), file_line(file))
        return Exit.OK

    async def _failed(self, item: Item, file_id: str, error: Exception) -> None:
        """Say what went wrong with one file and, where it could still become something, what to do."""
        by_batch = isinstance(error, errors.UploadCancelled) and error.cancelled_by == "batch_cancel"
        self.hopeless = self.hopeless or by_batch or isinstance(error, errors.Unavailable)
        self._output.note("failed", f"{item.name}: {sentence(error)}", file_id=file_id, error=error_json(error))
        if isinstance(error, errors.SourceError | OSError) and not self._arguments.keep:
            # What was sent can never become right: better gone than left to expire.
            await self._cancel_file(file_id, "the source changed or could not be read")
        elif isinstance(error, errors.Unavailable | errors.UploadIdle | errors.ServerFailure):
            self.resumable = True

    def _say_how_to_resume(self) -> None:
        command = self._job.resume
        self._output.note("resumable", f"It can be resumed: {command}", command=command)

    async def _sum_up(self, code: Exit) -> Exit:
        job = self._job
        unsent = len(job.ids) - len(job.codes)
        if unsent:
            self._output.note("unsent", f"{unsent} files were not started.", files=unsent)
        if self.resumable:
            self._say_how_to_resume()
        elif job.batch_id:
            batch = await self._client.get_batch(job.batch_id)
            self._output.result(as_json(batch), "batch  " + batch_line(batch))
        return code

    async def _stop(self, sending: asyncio.Task[Exit], asked: Exit) -> Exit:
        """Leave everything resumable, or cancel on the server and say what came of it; ``asked`` names the signal."""
        job = self._job
        if self._arguments.keep:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            self._say_how_to_resume()
            return asked
        self._output.note("cancelling", "Cancelling on the server (Ctrl-C again leaves without waiting) ...")
        code = await (self._cancel_batch() if job.batch_id else self._cancel_file(job.ids[0], "interrupted"))
        await asyncio.wait({sending}, timeout=_STOP_SECONDS)
        return code or asked

    async def _cancel_file(self, file_id: str, reason: str) -> Exit:
        """Cancel a file and say truthfully what came of it; returns OK once it is cancelled."""
        try:
            outcome = await self._client.cancel(file_id, reason=reason)
        except errors.UploadServiceError as error:
            return self._not_cancelled(error, f"uploadctl cancel {file_id}")
        self._output.note("cancelled", cancelled_text(outcome), file_id=file_id)
        return Exit.OK

    async def _cancel_batch(self) -> Exit:
        batch_id = self._job.batch_id
        try:
            outcome = await self._client.cancel_batch(batch_id, reason="interrupted")
        except errors.UploadServiceError as error:
            return self._not_cancelled(error, f"uploadctl cancel-batch {batch_id}")
        self._output.note("cancelled", cancelled_batch_text(outcome), batch_id=batch_id)
        return Exit.OK

    def _not_cancelled(self, error: errors.UploadServiceError, command: str) -> Exit:
        self._output.error(error)
        if isinstance(error, errors.NotInState):
            self._output.note("too_late", f"Too late: it is {error.status}.", status=error.status)
        else:
            self._output.note("unknown", f"It is not known to be cancelled; ask again: {command}")
        return exit_of(error)
