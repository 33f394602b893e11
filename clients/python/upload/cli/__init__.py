"""``uploadctl``: uploads, cancels and watches from the command line."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Sequence

from upload.async_client import AsyncClient
from upload.cli import commands, uploading, watching
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
    "list": commands.list_files,
    "audit": commands.audit,
    "watch": watching.watch,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; argparse leaves by itself for ``--help`` and wrong usage."""
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


async def _run(arguments: Arguments, output: Output) -> Exit:
    async with AsyncClient(arguments.server, timeout=arguments.timeout) as client:
        try:
            return await COMMANDS[arguments.command](client, arguments, output)
        except (UploadServiceError, OSError) as error:
            if isinstance(error, BrokenPipeError):
                raise
            output.error(error)
            return exit_of(error)
