"""Decides what a command line means and which one is wrong; reads the environment (``UPLOAD_SERVER``, …)."""

from __future__ import annotations

import argparse
import math
import os
import re
import sys
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

from upload.channel import is_loopback
from upload.cli.grammar import grammar
from upload.tls import Tls, address_of
from upload.tokens import CommandToken, FileToken, Token

STDIN = "-"
_LOCAL = frozenset({"to", "ca", "cert", "key", "token_file", "token_command", "name"})
_HEADER = re.compile(r"([0-9A-Za-z_.-]+): *([\x20-\x7e]*)")


class Arguments(argparse.Namespace):
    """The parsed command line; each command uses its own part."""

    command: str
    server: str
    timeout: float
    output: str
    headers_before: list[str]
    headers_after: list[str]
    token_file: str
    token_command: str
    ca: str
    cert: str
    key: str
    # upload
    paths: list[Path]
    # The file that has the bytes of stdin.
    stdin_copy: Path | None = None
    name: str
    content_type: str
    sha256: str
    # None: as many as help.
    jobs: int | None
    keep: bool
    resume: str
    resume_batch: str
    no_checksum: bool
    # cancel, cancel-batch, get, watch
    ids: list[str]
    # Those that stdin has, in the place of ``-``.
    stdin_ids: Sequence[str] = ()
    reason: str
    request_id: str
    is_batch: bool
    # download
    id: str
    to: str
    force: bool
    # watch, upload
    batches: list[str]
    all: bool
    until_final: bool
    # None: the command's own pace.
    progress: float | None
    table: bool
    resume_token: str
    patience: float
    # list, list-batches, audit
    oldest: bool
    follow: bool
    limit: int
    statuses: list[str]
    batch: str
    file: str
    owner: str
    filename_prefix: str
    since: datetime | None
    until: datetime | None
    updated_since: datetime | None
    cancelled_by: str
    actor: str
    source: str
    to_status: str
    # stats
    window: timedelta
    step: timedelta
    # completion
    shell: str

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

    @property
    def headers(self) -> list[str]:
        """All that were given."""
        return [*self.headers_before, *self.headers_after]

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """The headers that every call carries."""
        pairs = (header.partition(":") for header in self.headers)
        return tuple((name.lower(), value.strip()) for name, _, value in pairs)

    @property
    def bytes_from_stdin(self) -> bool:
        """Whether the bytes to upload come from stdin."""
        return self.command == "upload" and [str(path) for path in self.paths] == [STDIN]

    @property
    def ids_from_stdin(self) -> bool:
        """Whether stdin names ids, a line each."""
        return STDIN in getattr(self, "ids", ())

    @property
    def every_id(self) -> list[str]:
        """The ids of the command line, with those of stdin in their place."""
        return [text for word in self.ids for text in (self.stdin_ids if word == STDIN else [word])]


def parse(argv: Sequence[str] | None) -> Arguments:
    """Parse the command line; leaves with code 2 and one sentence when it is wrong."""
    parser = grammar()
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["help"]:
        words = [*words[1:2], "--help"]
    arguments = parser.parse_args(words, Arguments())
    problem = _common_problem(arguments) or _problem(arguments)
    if problem:
        parser.error(problem)
    return arguments


def _not_utf8(arguments: Arguments) -> str:
    """Return a word that the server could not take, or nothing; paths are bytes, and a name has its own sentence."""
    for name, value in vars(arguments).items():
        for word in value if isinstance(value, list) else [value]:
            if isinstance(word, str) and name not in _LOCAL and any("\ud800" <= char <= "\udfff" for char in word):
                return word
    return ""


def _common_problem(arguments: Arguments) -> str:
    if word := _not_utf8(arguments):
        return f"{word!a} is not UTF-8"
    if not 0 < arguments.timeout < math.inf:
        return "--timeout must be more than 0 seconds"
    for header in arguments.headers:
        if not _HEADER.fullmatch(header) or header.partition(":")[0].lower().endswith("-bin"):
            return "--header is written as 'Name: value', in printable ASCII"
    try:
        target, secure = address_of(arguments.server)
    except ValueError as error:
        return str(error)
    secret = any(name in {"authorization", "cookie"} for name, _ in arguments.metadata)
    if secret and not secure and not is_loopback(target):
        return f"--header would send a secret to {target} in plain text: name the server as https://{target}"
    return ""


def _problem(arguments: Arguments) -> str:
    """Return the problem of a command that argparse cannot express, or nothing."""
    match arguments.command:
        case "upload":
            return _problem_of_upload(arguments)
        case "cancel" | "cancel-batch" | "delete-content":
            several = len(arguments.ids) > 1 or arguments.ids_from_stdin
            return "--request-id goes with one ID only" if several and arguments.request_id else ""
        case "watch" if arguments.all and (arguments.ids or arguments.batches or arguments.until_final):
            return "--all cannot be combined with ids, --batch or --until-final"
        case "watch" if not (arguments.all or arguments.ids or arguments.batches):
            return "name files to watch, or --batch ID, or --all"
        case "list" | "list-batches" | "audit" if arguments.limit < 0:
            return "--limit must not be negative"
        case "list" | "list-batches" if arguments.follow and (arguments.oldest or arguments.until):
            return "--watch shows what comes: it goes with neither --oldest nor --until"
    return ""


def _problem_of_upload(arguments: Arguments) -> str:
    if arguments.jobs is not None and arguments.jobs < 1:
        return "--jobs must be at least 1"
    if STDIN in map(str, arguments.paths):
        if len(arguments.paths) > 1:
            return "- (stdin) goes alone"
        return "" if arguments.name or arguments.resume else "- (stdin) has no name: give the file's with --name"
    if len(arguments.paths) > 1 or arguments.paths[0].is_dir():
        options = (("--resume", arguments.resume), ("--name", arguments.name), ("--sha256", arguments.sha256))
        single = [option for option, value in options if value]
        return f"{single[0]} goes with one file only" if single else ""
    if arguments.resume_batch:
        return "--resume-batch goes with the folder or the files of that batch; for one file there is --resume"
    return ""
