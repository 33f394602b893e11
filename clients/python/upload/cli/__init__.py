"""``uploadctl``: uploads, cancels and watches from the command line."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Sequence

from upload.async_client import AsyncClient
from upload.cli import commands, downloading, uploading, watching
from upload.cli.arguments import Arguments, parse
from upload.cli.exits import Exit, exit_of
from upload.cli.output import Output
from upload.errors import UploadServiceError

Command = Callable[[AsyncClient, Arguments, Output], Awaitable[Exit]]

COMMANDS: dict[str, Command] = {
    "upload": uploading.upload,
    "cancel": commands.cancel,
    "cancel-batch": commands.cancel_batch,
    "get": commands.get,
    "download": downloading.download,
    "list": commands.list_files,
    "audit": commands.audit,
    "watch": watching.watch,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; argparse leaves by itself for ``--help`` and wrong usage."""
    _open_standard_streams()
    arguments = parse(argv)
    output = Output(json_lines=arguments.json)
    try:
        return asyncio.run(_run(arguments, output))
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    except BrokenPipeError:
        # The reader of our lines has enough. Point stdout elsewhere, or Python complains when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.PIPE_CLOSED


def _open_standard_streams() -> None:
    """Open /dev/null in the place of those that are closed: else a connection gets their number, and our words."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number, so this one.
            os.open(os.devnull, os.O_RDWR)
    # Python has none for a number that was closed when it started.
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115 - for good
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115 - for good


async def _run(arguments: Arguments, output: Output) -> Exit:
    try:
        opened = AsyncClient(arguments.server, timeout=arguments.timeout, tls=arguments.tls, token=arguments.token)
    except (ValueError, OSError) as error:
        output.error(error)
        return Exit.USAGE
    async with opened as client:
        try:
            return await COMMANDS[arguments.command](client, arguments, output)
        except (UploadServiceError, OSError) as error:
            if isinstance(error, BrokenPipeError):
                raise
            output.error(error)
            return exit_of(error)
