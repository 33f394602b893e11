"""``uploadctl``: uploads, cancels and watches from the command line."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

# gRPC's core reads this as it is loaded. What it says of handshakes and names our own sentences say too, and its lines
# would stand between ours.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from upload.async_client import AsyncClient
from upload.cli import commands, downloading, listing, uploading, watching
from upload.cli.arguments import Arguments, parse
from upload.cli.completion import completion
from upload.cli.exits import Exit, exit_of
from upload.cli.finding import AmbiguousId
from upload.cli.output import Output
from upload.errors import UploadServiceError

Command = Callable[[AsyncClient, Arguments, Output], Awaitable[Exit]]

COMMANDS: dict[str, Command] = {
    "upload": uploading.upload,
    "download": downloading.download,
    "cancel": commands.cancel,
    "cancel-batch": commands.cancel_batch,
    "delete-content": commands.delete_content,
    "get": commands.get,
    "list": listing.list_files,
    "list-batches": listing.list_batches,
    "audit": listing.audit,
    "watch": watching.watch,
    "stats": commands.stats,
    "whoami": commands.whoami,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; argparse leaves by itself for ``--help`` and wrong usage."""
    _open_standard_streams()
    arguments = parse(argv)
    output = Output(arguments.output)
    try:
        if arguments.command == "completion":
            output.must_show = False
            output.script(completion(arguments.shell))
            return _exit_of_lost(output) if output.lost else Exit.OK
        with _stdin_read(arguments):
            return asyncio.run(_run(arguments, output))
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    except BrokenPipeError:
        # The reader of our lines has enough.
        return Exit.PIPE_CLOSED
    except OSError as error:
        why = OSError(f"What stdin has cannot be read, or not be kept until it is sent: {error.strerror}")
        output.error(why if arguments.ids_from_stdin or arguments.bytes_from_stdin else error)
        return exit_of(error)


def _open_standard_streams() -> None:
    """Open /dev/null in the place of those that are closed: else a connection gets their number, and our words.

    A closed stdin cannot be read then: it is no file of no bytes.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number, so this one.
            os.open(os.devnull, os.O_WRONLY)
    # Python has none for a number that was closed when it started.
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115 - for good
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115 - for good
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115 - for good


@contextmanager
def _stdin_read(arguments: Arguments) -> Iterator[None]:
    """Read what the command wants of stdin before anything runs beside it: a thread that reads hears no Ctrl-C.

    Bytes that are to be sent go into a file: the service asks for their number first.
    """
    if arguments.ids_from_stdin:
        arguments.stdin_ids = [line.split()[0].decode(errors="replace") for line in sys.stdin.buffer if line.strip()]
    if not arguments.bytes_from_stdin:
        yield
        return
    with tempfile.NamedTemporaryFile(prefix="uploadctl.") as file:
        shutil.copyfileobj(sys.stdin.buffer, file, 1024 * 1024)
        file.flush()
        arguments.stdin_copy = Path(file.name)
        yield


async def _run(arguments: Arguments, output: Output) -> Exit:
    try:
        opened = AsyncClient(
            arguments.server,
            timeout=arguments.timeout,
            tls=arguments.tls,
            token=arguments.token,
            metadata=arguments.metadata,
        )
    except (ValueError, OSError) as error:
        output.error(error)
        return Exit.USAGE
    async with opened as client:
        try:
            code = await COMMANDS[arguments.command](client, arguments, output)
            output.close()
        except (UploadServiceError, OSError, AmbiguousId) as error:
            if error is output.lost:
                return _exit_of_lost(output)
            if isinstance(error, BrokenPipeError):
                raise
            output.error(error)
            output.close()
            return exit_of(error)
    return code if code or not output.lost else _exit_of_lost(output)


def _exit_of_lost(output: Output) -> Exit:
    """Return the code of a command whose results nobody can read; of others than readers who left, say so."""
    if output.lost is None or isinstance(output.lost, BrokenPipeError):
        return Exit.PIPE_CLOSED
    output.note("lost", f"The results could not be written: {output.lost.strerror}.")
    return Exit.SERVER_ERROR
