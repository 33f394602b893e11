"""Decides the command line of ``uploadctl``; the only reader of the environment (``UPLOAD_SERVER``, …)."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Sequence
from pathlib import Path

from upload.channel import DEFAULT_TARGET
from upload.cli.exits import EXIT_CODES
from upload.tls import Tls
from upload.tokens import CommandToken, FileToken, Token

_TLS = (("ca", "who signs the server's certificate"), ("cert", "your certificate"), ("key", "its key"))
STATUSES = ("pending", "uploading", "completed", "failed", "cancelled")


class Arguments(argparse.Namespace):
    """The parsed command line; each command uses its own part."""

    command: str
    server: str
    timeout: float
    json: bool
    token_file: str
    token_command: str
    ca: str
    cert: str
    key: str
    # upload
    paths: list[Path]
    name: str
    content_type: str
    sha256: str
    # None: as many as help.
    jobs: int | None
    keep: bool
    resume: str
    resume_batch: str
    no_checksum: bool
    # cancel, cancel-batch, get
    id: str
    reason: str
    request_id: str
    is_batch: bool
    # download
    to: str
    force: bool
    # watch, list, audit
    newest: bool
    ids: list[str]
    batches: list[str]
    batch: str
    file: str
    all: bool
    until_final: bool
    progress: float
    table: bool
    resume_token: str
    status: str
    limit: int

    @property
    def token(self) -> Token | None:
        """Who calls, if anything says so: the first of the options, then of the environment. Raises OSError."""
        if self.token_command:
            return CommandToken(self.token_command)
        file = self.token_file or os.environ.get("UPLOAD_TOKEN_FILE", "")
        return FileToken(Path(file)) if file else os.environ.get("UPLOAD_TOKEN") or None

    @property
    def tls(self) -> Tls | None:
        """What to trust and to show, if anything was said."""
        return Tls(self.ca, self.cert, self.key) if self.ca or self.cert or self.key else None


def parse(argv: Sequence[str] | None) -> Arguments:
    """Parse the command line; leaves with code 2 and one sentence when it is wrong."""
    parser = _parser()
    arguments = parser.parse_args(argv, Arguments())
    problem = _problem(arguments)
    if problem:
        parser.error(problem)
    return arguments


def _problem(arguments: Arguments) -> str:
    """Return the problem that argparse cannot express, or nothing."""
    if not 0 < arguments.timeout < math.inf:
        return "--timeout must be more than 0 seconds"
    match arguments.command:
        case "upload" if arguments.jobs is not None and arguments.jobs < 1:
            return "--jobs must be at least 1"
        case "upload" if len(arguments.paths) > 1 or arguments.paths[0].is_dir():
            single = [
                option
                for option, value in (
                    ("--resume", arguments.resume),
                    ("--name", arguments.name),
                    ("--sha256", arguments.sha256),
                )
                if value
            ]
            return f"{single[0]} goes with one file only" if single else ""
        case "upload" if arguments.resume_batch:
            return "--resume-batch goes with the folder or the files of that batch; for one file there is --resume"
        case "watch" if arguments.all and (arguments.ids or arguments.batches or arguments.until_final):
            return "--all cannot be combined with ids, --batch or --until-final"
        case "watch" if not (arguments.all or arguments.ids or arguments.batches):
            return "name files to watch, or --batch ID, or --all"
        case "list" | "audit" if arguments.limit < 0:
            return "--limit must not be negative"
    return ""


def _parser() -> argparse.ArgumentParser:
    # Here and below options are valid in full only: a new option must make no script ambiguous.
    parser = argparse.ArgumentParser(
        prog="uploadctl",
        allow_abbrev=False,
        description="Upload files, cancel uploads, and watch what becomes of them.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(
        server=os.environ.get("UPLOAD_SERVER") or DEFAULT_TARGET,
        timeout=30.0,
        json=False,
    )
    parser.set_defaults(token_file="", token_command="")
    parser.set_defaults(**{name: os.environ.get(f"UPLOAD_{name.upper()}", "") for name, _ in _TLS})
    _common(parser)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_upload(commands)
    _add_cancels(commands)
    _add_watch(commands)
    _add_reads(commands)
    return parser


def _common(parser: argparse.ArgumentParser) -> None:
    # Before or after the command: suppressed defaults keep one from undoing the other.
    parser.add_argument(
        "--server",
        default=argparse.SUPPRESS,
        metavar="[https://]HOST:PORT",
        help=f"where the service is; https:// speaks TLS (environment: UPLOAD_SERVER; default {DEFAULT_TARGET})",
    )
    parser.add_argument(
        "--timeout",
        default=argparse.SUPPRESS,
        type=float,
        metavar="SECONDS",
        help="for each call, not for a whole upload or watch (default 30)",
    )
    for name, text in _TLS:
        parser.add_argument(
            f"--{name}",
            default=argparse.SUPPRESS,
            metavar="FILE",
            help=f"PEM file of {text}, with https:// (environment: UPLOAD_{name.upper()})",
        )
    parser.add_argument(
        "--token-file",
        default=argparse.SUPPRESS,
        metavar="FILE",
        help="file of the token that says who calls (environment: UPLOAD_TOKEN_FILE, or the token in UPLOAD_TOKEN)",
    )
    parser.add_argument(
        "--token-command",
        default=argparse.SUPPRESS,
        metavar="COMMAND",
        help='prints {"token": …, "expires_at": …}; run again once the server refuses the token',
    )
    parser.add_argument(
        "--json", default=argparse.SUPPRESS, action="store_true", help="JSON lines, errors on stderr too"
    )


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    summary: str,
) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name,
        allow_abbrev=False,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _common(parser)
    return parser


def _add_upload(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = _command(commands, "upload", "upload a file, or several files and folders as one batch; Ctrl-C cancels it")
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="files and folders")
    parser.add_argument("--name", default="", help="the file's name on the server (default: its own)")
    parser.add_argument("--content-type", default="", metavar="TYPE", help="default: guessed from the name")
    parser.add_argument("--sha256", default="", metavar="HEX", help="what its SHA-256 has to be")
    parser.add_argument("--no-checksum", action="store_true", help="do not compare SHA-256 with the server")
    jobs = "files sent at once (default 4, or 32 while all are at most 256 KiB)"
    parser.add_argument("--jobs", type=int, metavar="N", help=jobs)
    parser.add_argument(
        "--keep", action="store_true", help="on Ctrl-C leave the upload resumable instead of cancelling it"
    )
    parser.add_argument("--resume", default="", metavar="FILE_ID", help="go on with a file sent before")
    parser.add_argument(
        "--resume-batch", default="", metavar="BATCH_ID", help="go on with a batch sent before, from the same paths"
    )


def _add_cancels(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    for name, summary in (
        ("cancel", "cancel a file; one that is cancelled already is fine"),
        ("cancel-batch", "cancel a batch and its files; one that is cancelled already is fine"),
    ):
        parser = _command(commands, name, summary)
        parser.add_argument("id", metavar="ID")
        parser.add_argument("--reason", default="", help="for those who watch, and for the audit trail")
        parser.add_argument(
            "--request-id", default="", metavar="ID", help="repeat an earlier call safely (default: a new one)"
        )


def _add_watch(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = _command(
        commands,
        "watch",
        "show states and every change: lines on a terminal, JSON lines when piped",
    )
    parser.add_argument("ids", nargs="*", metavar="ID", help="files")
    parser.add_argument(
        "--batch",
        dest="batches",
        action="append",
        default=[],
        metavar="ID",
        help="a batch with its files; repeatable",
    )
    parser.add_argument("--all", action="store_true", help="everything that is not final yet, and what comes")
    parser.add_argument(
        "--until-final",
        action="store_true",
        help="end when all are final: 0 all completed, 5 some cancelled, 6 some failed",
    )
    parser.add_argument("--table", action="store_true", help="on a terminal: a live table, a row for each target")
    parser.add_argument("--progress", type=float, default=0.0, metavar="SECONDS", help="show progress too, this often")
    parser.add_argument("--resume-token", default="", metavar="TOKEN", help="go on after this token")


def _add_reads(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = _command(commands, "download", "store the bytes of a completed file, its SHA-256 compared")
    parser.add_argument("id", metavar="ID")
    parser.add_argument("--to", default="", metavar="PATH", help="file or folder; - for stdout (default: its own name)")
    parser.add_argument("--force", action="store_true", help="replace a file that is there")

    parser = _command(commands, "get", "show one file or batch")
    parser.add_argument("id", metavar="ID")
    parser.add_argument("--batch", dest="is_batch", action="store_true", help="the id is a batch's")

    parser = _command(commands, "list", "list files, oldest first")
    parser.add_argument("--newest", action="store_true", help="newest first")
    parser.add_argument("--status", choices=STATUSES, default="", help="only files in this state")
    parser.add_argument("--batch", default="", metavar="ID", help="only files of this batch")
    parser.add_argument("--limit", type=int, default=50, metavar="N", help="default 50; 0: all")

    parser = _command(commands, "audit", "list changes of status, oldest first")
    parser.add_argument("--file", default="", metavar="ID", help="only of this file")
    parser.add_argument("--batch", default="", metavar="ID", help="only of this batch and its files")
    parser.add_argument("--limit", type=int, default=50, metavar="N", help="default 50; 0: all")
