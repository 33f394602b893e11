"""Decides the commands and options of ``uploadctl``, and their help."""

from __future__ import annotations

import argparse
import difflib
import os
import re
from collections.abc import Callable
from datetime import timedelta
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from upload.channel import DEFAULT_TARGET
from upload.cli.exits import EXIT_CODES
from upload.cli.output import FORMATS
from upload.cli.when import length, moment

T = TypeVar("T")
STATUSES = ("pending", "uploading", "completed", "failed", "cancelled")
BATCH_STATUSES = ("pending", "processing", "completed", "failed", "cancelled")
TLS_FILES = (("ca", "who signs the server's certificate"), ("cert", "your certificate"), ("key", "its key"))
_CHOICE = re.compile(r"invalid choice: '([^']*)' \(choose from (.*)\)")


class Parser(argparse.ArgumentParser):
    """One that says which command or option may have been meant."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """Know all words, or leave: a command tells of those too many itself, under its own usage."""
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found, unknown

    def error(self, message: str) -> NoReturn:
        """Leave with code 2."""
        wrong, known = "", []
        if found := _CHOICE.search(message):
            wrong, known = found[1], re.findall(r"[\w-]+", found[2])
        elif message.startswith("unrecognized arguments: -"):
            wrong = message.split()[2]
            known = [option for parser in self._parsers() for option in parser.options]
        close = difflib.get_close_matches(wrong.partition("=")[0], known, n=1)
        super().error(message + (f"; did you mean {close[0]}?" if close else ""))

    @property
    def options(self) -> list[str]:
        """Its options, without those of its commands."""
        return [option for action in self._actions for option in action.option_strings]

    @property
    def words(self) -> list[str]:
        """What may stand on its command line, of a few words."""
        return [*self.options, *(str(word) for action in self._arguments_of() for word in action.choices or ())]

    def _arguments_of(self) -> list[argparse.Action]:
        return [action for action in self._actions if not action.option_strings]

    @property
    def commands(self) -> dict[str, tuple[str, Parser]]:
        """Its commands, with what they are for."""
        return {
            listed.dest: (listed.help or "", action.choices[listed.dest])
            for action in self._actions
            if isinstance(action, argparse._SubParsersAction)  # noqa: SLF001 - argparse gives it no other name
            for listed in action._choices_actions  # noqa: SLF001 - as above
        }

    def _parsers(self) -> list[Parser]:
        return [self, *(command for _, command in self.commands.values())]


Commands = argparse._SubParsersAction  # noqa: SLF001 - argparse gives it no other name


def grammar() -> Parser:
    """Return the parser of the whole command line."""
    # Here and below options are valid in full only: a new option must make no script ambiguous.
    parser = Parser(
        prog="uploadctl",
        allow_abbrev=False,
        description="Upload files, cancel uploads, and watch what becomes of them.",
        epilog=f"An ID may be cut to its first characters (at least 4) that no other id has.\n\n{EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"uploadctl {_version()}")
    parser.set_defaults(server=os.environ.get("UPLOAD_SERVER") or DEFAULT_TARGET, timeout=30.0, output="table")
    parser.set_defaults(token_file="", token_command="", headers_before=[], headers_after=[])
    parser.set_defaults(**{name: os.environ.get(f"UPLOAD_{name.upper()}", "") for name, _ in TLS_FILES})
    _common(parser, "headers_before")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    _add_upload(commands)
    _add_download(commands)
    _add_cancels(commands)
    _add_get(commands)
    _add_lists(commands)
    _add_watch(commands)
    _add_others(commands)
    return parser


def _version() -> str:
    try:
        return version("upload-client")
    except PackageNotFoundError:
        return "of a source tree that is not installed"


def _common(parser: Parser, headers: str = "headers_after") -> None:
    # Before or after the command: suppressed defaults keep one from undoing the other.
    def add(*flags: str, **more: object) -> None:
        parser.add_argument(*flags, default=argparse.SUPPRESS, **more)  # type: ignore[arg-type]

    add(
        "--server",
        metavar="[https://]HOST:PORT",
        help="where the service's gRPC port is; https:// speaks TLS (environment: UPLOAD_SERVER; "
        f"default {DEFAULT_TARGET})",
    )
    add("-o", "--output", choices=FORMATS, help="how results are written (default table); else errors are JSON lines")
    add("--json", action="store_const", const="jsonl", dest="output", help="the same as -o jsonl")
    add(
        "--timeout",
        type=float,
        metavar="SECONDS",
        help="for each call, not for a whole upload or watch (default 30)",
    )
    # What stands before the command and what stands after it go together.
    add("--header", action="append", dest=headers, metavar="'NAME: VALUE'", help="sent with each call; repeatable")
    for name, text in TLS_FILES:
        add(f"--{name}", metavar="FILE", help=f"PEM file of {text}, with https:// (environment: UPLOAD_{name.upper()})")
    add(
        "--token-file",
        metavar="FILE",
        help="file of the token that says who calls (environment: UPLOAD_TOKEN_FILE, or the token in UPLOAD_TOKEN)",
    )
    add(
        "--token-command",
        metavar="COMMAND",
        help='prints {"token": …, "expires_at": …}; run again once the server refuses the token',
    )


def _command(commands: Commands[Parser], name: str, summary: str) -> Parser:
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


def _typed(function: Callable[[str], T]) -> Callable[[str], T]:
    """Return a type of argparse that says what ``function`` says of a wrong value."""

    def read(text: str) -> T:
        try:
            return function(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return read


def _words(known: tuple[str, ...]) -> Callable[[str], list[str]]:
    def read(text: str) -> list[str]:
        words = text.split(",")
        if wrong := [word for word in words if word not in known]:
            raise ValueError(f"{wrong[0]!r} is none of {', '.join(known)}")
        return words

    return _typed(read)


def _seconds(text: str) -> float:
    if not 0 <= float(text) < float("inf"):
        raise ValueError("must not be negative")
    return float(text)


def _add_upload(commands: Commands[Parser]) -> None:
    parser = _command(commands, "upload", "upload a file, or several files and folders as one batch; Ctrl-C cancels it")
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="files and folders; - for stdin")
    parser.add_argument("--name", default="", help="the file's name on the server (default: its own)")
    parser.add_argument("--content-type", default="", metavar="TYPE", help="default: guessed from the name")
    parser.add_argument("--sha256", default="", metavar="HEX", help="what its SHA-256 has to be")
    parser.add_argument("--no-checksum", action="store_true", help="do not compare SHA-256 with the server")
    jobs = "files sent at once (default 4, or 32 while all are at most 256 KiB)"
    parser.add_argument("--jobs", type=int, metavar="N", help=jobs)
    parser.add_argument(
        "--progress",
        type=_typed(_seconds),
        metavar="SECONDS",
        help="without a terminal: say how far it is this often (default 10; 0: never)",
    )
    parser.add_argument(
        "--keep", action="store_true", help="on Ctrl-C leave the upload resumable instead of cancelling it"
    )
    parser.add_argument("--resume", default="", metavar="FILE_ID", help="go on with a file sent before")
    parser.add_argument(
        "--resume-batch", default="", metavar="BATCH_ID", help="go on with a batch sent before, from the same paths"
    )


def _add_download(commands: Commands[Parser]) -> None:
    parser = _command(commands, "download", "store the bytes of a completed file, its SHA-256 compared")
    parser.add_argument("id", metavar="ID")
    parser.add_argument("--to", default="", metavar="PATH", help="file or folder; - for stdout (default: its own name)")
    parser.add_argument("--force", action="store_true", help="replace a file that is there")


def _add_cancels(commands: Commands[Parser]) -> None:
    for name, summary in (
        ("cancel", "cancel files; one that is cancelled already is fine"),
        ("cancel-batch", "cancel batches and their files; one that is cancelled already is fine"),
        ("delete-content", "let go of the bytes of completed files, which stay in lists and in the trail"),
    ):
        parser = _command(commands, name, summary)
        parser.add_argument("ids", nargs="+", metavar="ID", help="- for stdin: the first word of each line")
        parser.add_argument("--reason", default="", help="for those who watch, and for the audit trail")
        parser.add_argument(
            "--request-id", default="", metavar="ID", help="repeat an earlier call safely (default: a new one)"
        )


def _add_get(commands: Commands[Parser]) -> None:
    parser = _command(commands, "get", "show files or batches")
    parser.add_argument("ids", nargs="+", metavar="ID", help="- for stdin: the first word of each line")
    parser.add_argument("--batch", dest="is_batch", action="store_true", help="the ids are batches'")


def _add_lists(commands: Commands[Parser]) -> None:
    parser = _command(commands, "list", "list files, newest first")
    parser.add_argument("--batch", default="", metavar="ID", help="only files of this batch")
    _add_filters(parser, STATUSES, "files")
    parser = _command(commands, "list-batches", "list batches, newest first")
    _add_filters(parser, BATCH_STATUSES, "batches")
    parser = _command(commands, "audit", "list changes of status, newest first")
    parser.add_argument("--file", default="", metavar="ID", help="only of this file")
    parser.add_argument("--batch", default="", metavar="ID", help="only of this batch and its files")
    parser.add_argument("--actor", default="", help="only by this one: user, user:NAME, system")
    parser.add_argument("--source", default="", help="only through this door or by this rule: grpc, http, expiry, …")
    parser.add_argument("--to-status", default="", metavar="STATUS", help="only changes to this state")
    _add_bounds(parser, "changes")


def _add_filters(parser: Parser, statuses: tuple[str, ...], what: str) -> None:
    parser.add_argument(
        "--status",
        dest="statuses",
        action="extend",
        type=_words(statuses),
        default=[],
        metavar="STATUS[,STATUS]",
        help=f"only {what} in these states: {', '.join(statuses)}",
    )
    name = "only files whose name" if what == "files" else "only batches with a file whose name"
    parser.add_argument("--name", dest="filename_prefix", default="", metavar="PREFIX", help=f"{name} starts so")
    parser.add_argument(
        "--updated-since", type=_typed(moment), metavar="TIME", help="only those whose status changed later"
    )
    parser.add_argument("--cancelled-by", default="", metavar="WHO", help="only those cancelled by: user, user:NAME, …")
    _add_bounds(parser, what)
    parser.add_argument("-w", "--watch", dest="follow", action="store_true", help="then show what changes and comes")


def _add_bounds(parser: Parser, what: str) -> None:
    parser.add_argument("--owner", default="", metavar="NAME", help=f"only {what} of this principal")
    parser.add_argument(
        "--since", type=_typed(moment), metavar="TIME", help=f"only {what} later: 2h, 3d, 2024-01-31T12:00:00Z"
    )
    parser.add_argument("--until", type=_typed(moment), metavar="TIME", help=f"only {what} earlier")
    parser.add_argument("--oldest", action="store_true", help="oldest first")
    parser.add_argument("-n", "--limit", type=int, default=50, metavar="N", help="default 50; 0: all")


def _add_watch(commands: Commands[Parser]) -> None:
    parser = _command(commands, "watch", "show states and every change, a line each (-o json: as jsonl)")
    parser.add_argument("ids", nargs="*", metavar="ID", help="files")
    parser.add_argument(
        "--batch", dest="batches", action="append", default=[], metavar="ID", help="a batch with its files; repeatable"
    )
    parser.add_argument("--all", action="store_true", help="everything that is not final yet, and what comes")
    parser.add_argument(
        "--until-final",
        action="store_true",
        help="end when all are final: 0 all completed, 5 some cancelled, 6 some failed",
    )
    parser.add_argument("--table", action="store_true", help="on a terminal: a live table, a row for each target")
    parser.add_argument(
        "--progress", type=_typed(_seconds), metavar="SECONDS", help="show progress too, this often (--table: 1)"
    )
    parser.add_argument("--resume-token", default="", metavar="TOKEN", help="go on after this token")
    parser.add_argument(
        "--patience",
        type=_typed(_seconds),
        default=60.0,
        metavar="SECONDS",
        help="how long to try when the connection is lost (default 60)",
    )


def _add_others(commands: Commands[Parser]) -> None:
    parser = _command(commands, "stats", "count files and batches by state, and what happened of late")
    none = timedelta(0)
    parser.add_argument(
        "--window", type=_typed(length), default=none, metavar="LENGTH", help="how far back, at most 1d: 15m, 2h"
    )
    parser.add_argument("--step", type=_typed(length), default=none, metavar="LENGTH", help="in such steps: 10s, 1m")
    _command(commands, "whoami", "show who calls, as the server knows it, and what that caller may")
    parser = _command(commands, "completion", "print what makes a shell complete commands and options")
    parser.add_argument("shell", choices=("bash", "zsh", "fish"))
