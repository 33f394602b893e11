"""Decides which commands the program has, and what the operating system hears of them.

Must not know how the service works inside.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import signal
import sys
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
import uvloop

from upload_server import __version__
from upload_server.config import Config, ConfigError
from upload_server.domain.errors import CannotStart
from upload_server.options import add_options, load, mistyped
from upload_server.process import BackgroundStream, configure_logging
from upload_server.process.arguments import hide_passwords
from upload_server.process.descriptors import open_standard_streams
from upload_server.process.heap import share_one_heap
from upload_server.process.supervisor import tell
from upload_server.upkeep.arguments import ExactParser, add_operations

log = structlog.get_logger("upload_server")

_SWITCH_SECONDS = 0.0005

EXIT_FAILURE = 1
EXIT_USAGE = 2
# Seconds from the last line of the log to the end of the process, whatever hangs.
_LEAVE_SECONDS = 2.0


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    top = ExactParser(
        prog="upload-server",
        description="The gRPC service that takes file uploads and cancels them for certain.",
        epilog="`upload-server serve --help` lists the options. Each is also an environment variable: --grpc-port is "
        "UPLOAD_GRPC_PORT. The option wins.",
    )
    top.add_argument("--version", action="version", version=f"upload-server {__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND")
    for name, text in (
        ("serve", "run the service (the default)"),
        ("migrate", "apply schema migrations and exit; on SQLite `serve` does it at start"),
    ):
        # All options in the usage would be a screenful above each mistake.
        command = commands.add_parser(name, help=text, description=text, usage="%(prog)s [--OPTION VALUE ...]")
        add_options(command)
    # What `serve --workers` starts; nobody else does, so `--help` does not list it.
    worker = commands.add_parser("worker")
    add_options(worker)
    for name in ("parent", "ready", "turns"):
        worker.add_argument(f"--{name}", type=int, required=True)
    add_operations(commands)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    hide_passwords()
    open_standard_streams()
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or (words[0].startswith("-") and words[0] not in {"-h", "--help", "--version"}):
        words.insert(0, "serve")
    options = vars(parser().parse_args(words))
    command = options.pop("command")
    try:
        config = load(options, os.environ)
        if command in {"serve", "worker"}:
            config.check_auth()
    except ConfigError as error:
        print(f"upload-server: {error}", file=sys.stderr)  # noqa: T201 - there is no log yet
        return EXIT_USAGE
    if command in _OPERATIONS:
        # Imported late, as below. They say what they find on standard output, and write no log.
        from upload_server.upkeep.commands import run  # noqa: PLC0415

        return run(command, config, options)
    stream = BackgroundStream(sys.stderr)
    configure_logging({"json": True, "console": False}.get(config.log_format), config.log_level, stream)
    try:
        return _run(command, Start(config, options, stream))
    finally:
        stream.close()


@dataclass(frozen=True, slots=True)
class Start:
    """What a command starts with: the settings, the options as they were typed, and where the log goes."""

    config: Config
    options: Mapping[str, Any]
    stream: BackgroundStream


def _run(command: str, start: Start) -> int:
    # The parent of a worker has said so.
    for found, meant in mistyped(os.environ) if command != "worker" else ():
        log.warning("unknown environment variable", found=found, meant=meant)
    try:
        _COMMANDS[command](start)
    except CannotStart as error:
        log.error("cannot start", problem=str(error))  # noqa: TRY400 - the message says it all
        return EXIT_FAILURE
    except Exception:
        log.exception("broken")
        return EXIT_FAILURE
    return 0


def _collect_less_often() -> None:
    """Look for cyclic garbage after 50,000 new objects instead of 700, and never among what start-up made.

    Hardly any is made here, and the search took a sixth of the loop's time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


def _prepare_grpc() -> None:
    """Tell grpcio, before it is first imported, what only the environment can tell it, unless an operator has."""
    # It must not be surprised by a fork.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    # Lines of its own would stand in a log of JSON. What they say our log says, or nobody needs.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")


def _leave_soon(code: int) -> None:
    """End the process even if a thread hangs in the kernel, on a dead disk: Python would wait for it for ever."""
    timer = threading.Timer(_LEAVE_SECONDS, os._exit, [code])
    timer.daemon = True
    timer.start()


def _prepare_process(config: Config) -> None:
    share_one_heap()
    # A thread that computes gives Python's lock back to the event loop so soon: five times the usual makes a cancel,
    # which goes from thread to thread and back, wait as often.
    sys.setswitchinterval(_SWITCH_SECONDS)
    if config.sched_batch:
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def _until_stopped(config: Config, serve: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> None:
    """Run ``serve``, which ends soon after its event is set: SIGTERM and SIGINT do that."""

    async def run() -> None:
        stop = asyncio.Event()

        def drain() -> None:
            tell("STOPPING=1\nSTATUS=Draining")
            stop.set()

        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, drain)
        # A terminal that closes ends what runs in it; elsewhere it asks for files to be read, if there are any.
        loop.add_signal_handler(signal.SIGHUP, drain if os.isatty(0) else lambda: None)
        try:
            await serve(stop)
        except BaseException:
            _leave_soon(EXIT_FAILURE)
            raise
        log.info("stopped")
        _leave_soon(0)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop if config.uvloop else None) as runner:
        runner.run(run())


def _serve(start: Start) -> None:
    config = start.config
    _prepare_grpc()
    if not config.on_loopback and not config.with_auth:
        log.warning("anybody who reaches this address can upload and cancel: --auth none", host=config.host)

    def started(grpc_port: int, http_port: int) -> None:
        _collect_less_often()
        log.info(
            "serving",
            host=config.host,
            grpc_port=grpc_port,
            http_port=http_port,
            data_dir=str(config.data_dir),
            page=f"{config.page}:{http_port}/",
            **({"workers": config.workers} if config.workers > 1 else {}),
        )
        tell(f"READY=1\nSTATUS=Serving on {config.host}, gRPC port {grpc_port}, HTTP port {http_port}")

    # Imported late: `--help` and a mistyped option answer at once.
    if config.workers > 1:
        from upload_server.workers import serve_by_workers  # noqa: PLC0415

        _until_stopped(
            config, lambda stop: serve_by_workers(config, start.options, stop, started, start.stream.take_turns)
        )
        return
    _prepare_process(config)
    from upload_server.start import serve  # noqa: PLC0415

    _until_stopped(config, lambda stop: serve(config, stop, started))


def _work(start: Start) -> None:
    """Serve as one of several, for the parent that has started this process."""
    # At a terminal it reaches the parent too, which drains us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _prepare_grpc()
    _prepare_process(start.config)
    from upload_server.start import serve  # noqa: PLC0415 - as above
    from upload_server.workers import Worker  # noqa: PLC0415

    worker = Worker(start.options["parent"], start.options["ready"])
    start.stream.take_turns(start.options["turns"])

    def started(*_ports: int) -> None:
        _collect_less_often()
        worker.tell()

    config = start.config.of_one_worker()
    _until_stopped(config, lambda stop: serve(config, stop, started, worker.counting()))


def _migrate(start: Start) -> None:
    _prepare_grpc()
    from upload_server.start import migrate  # noqa: PLC0415 - as above

    applied = asyncio.run(migrate(start.config))
    log.info("migrated", applied=", ".join(applied) or "nothing to do")


_OPERATIONS = frozenset({"check", "audit", "backup", "copy", "nodes", "token", "adopt"})
_COMMANDS: Mapping[str, Callable[[Start], None]] = {"serve": _serve, "worker": _work, "migrate": _migrate}


if __name__ == "__main__":
    sys.exit(main())
