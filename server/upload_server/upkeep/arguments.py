"""Decides the words of the operator's commands: `check`, `audit verify`, `audit export`,
`backup`, `copy`, `nodes`, `token`, `adopt`.

Must not know what the commands do; imports little, so that `--help` answers at once.
"""

from __future__ import annotations

import argparse
import difflib
import string
from typing import TYPE_CHECKING, Any, TypeAlias

from upload_server.options import add_options
from upload_server.process.words import parse_seconds

if TYPE_CHECKING:
    Commands: TypeAlias = "argparse._SubParsersAction[ExactParser]"  # noqa: SLF001 - argparse has no public name for it

_SHA256_HEX = 64
# What of the settings says where an installation lies.
_WHERE = ("data_dir", "database_url", "storage_url")
_EXITS = "Exit codes: 0 all is well, 1 something is wrong, 2 it could not be looked at."


class ExactParser(argparse.ArgumentParser):
    """Takes options in full only: ``--rep`` is no ``--repair``, and a new option makes no script ambiguous.

    A command tells of words that it does not know itself, under its own usage, and which option may have been meant.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **{**options, "allow_abbrev": False})

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """Know all words, or leave with code 2."""
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            own = [name for action in self._actions for name in action.option_strings]
            meant = difflib.get_close_matches(unknown[0].partition("=")[0], own, n=1, cutoff=0.75)
            self.error(f"unrecognized arguments: {' '.join(unknown)}{f'; did you mean {meant[0]}?' if meant else ''}")
        return found, unknown


def add_operations(commands: Commands) -> None:
    """Add the operator's commands."""
    text = "verify an installation, running or stopped: rows, audit trail, bytes, schema"
    check = commands.add_parser("check", help=text, description=f"{text.capitalize()}. {_EXITS}")
    add_options(check, _WHERE)
    check.add_argument("--hash", dest="hashes", action="store_true", help="hash the bytes of completed files, too")
    check.add_argument("--repair", action="store_true", help="mend what can be mended safely; the service must not run")
    check.add_argument(
        "--delete-unknown", action="store_true", help="with --repair: delete bytes that no row knows, for ever"
    )
    check.add_argument("--json", action="store_true", help="print one JSON object")
    text = "the audit trail as a chain of hashes"
    audit = commands.add_parser("audit", help=text, description=text)
    audits = audit.add_subparsers(dest="audit_command", metavar="COMMAND", required=True)
    _add_verify(audits)
    _add_export(audits)
    _add_backup(commands)
    _add_copy(commands)
    _add_token(commands)
    _add_adopt(commands)
    text = "list the nodes that serve from the store, and what they hold"
    nodes = commands.add_parser("nodes", help=text, description=f"{text.capitalize()}.")
    add_options(nodes, _WHERE)
    nodes.add_argument("--json", action="store_true", help="print one JSON object")


def _add_verify(commands: Commands) -> None:
    text = "find the first broken link of the audit chain"
    command = commands.add_parser("verify", help=text, description=f"{text.capitalize()}. {_EXITS}")
    add_options(command, _WHERE)
    command.add_argument(
        "--anchor",
        action="append",
        type=parse_anchor,
        metavar="EVENT_ID:HASH",
        help="a hash kept elsewhere; the chain must hold it (may be repeated)",
    )
    command.add_argument(
        "--pruned",
        action="append",
        metavar="PATH",
        help="what --keep-rows has pruned, a folder or a file of it: it must lead to what is there (may be repeated)",
    )
    command.add_argument("--expect-head", type=parse_hash, metavar="HASH", help="the chain must end with this hash")
    command.add_argument("--json", action="store_true", help="print one JSON object")


def _add_export(commands: Commands) -> None:
    text = "write the audit trail as JSON lines, all fields and hashes, oldest first"
    command = commands.add_parser("export", help=text, description=f"{text.capitalize()}.")
    add_options(command, _WHERE)
    command.add_argument("--output", metavar="FILE", help="write to this file (mode 0600) instead of standard output")
    command.add_argument("--after", type=int, default=0, metavar="EVENT_ID", help="only what came after this event")


def _add_backup(commands: Commands) -> None:
    text = "copy rows and bytes of a running or stopped installation on SQLite into a new folder, and check the copy"
    backup = commands.add_parser("backup", help=text, description=f"{text.capitalize()}. {_EXITS}")
    add_options(backup, _WHERE)
    backup.add_argument("--to", required=True, metavar="FOLDER", help="data directory to make; it must not be there")
    backup.add_argument("--json", action="store_true", help="print one JSON object")


def _add_copy(commands: Commands) -> None:
    text = "copy a stopped installation into an empty one, as from SQLite to PostgreSQL"
    command = commands.add_parser(
        "copy", help=text, description=f"{text.capitalize()}: all or nothing, and as often as it takes."
    )
    for name, what in (("from", "database to copy"), ("to", "empty database with the schema, or SQLite file to make")):
        command.add_argument(f"--{name}", dest=f"copy_{name}", required=True, metavar="URL", help=what)
    command.add_argument(
        "--from-storage", metavar="URL", help="where the bytes lie (default: the folder bytes beside a SQLite file)"
    )
    command.add_argument(
        "--to-storage", metavar="URL", help="where to copy the bytes; without it they stay where they are"
    )


def _add_adopt(commands: Commands) -> None:
    text = "give files and batches that have no owner one, while no service runs"
    adopt = commands.add_parser("adopt", help=text, description=f"{text.capitalize()}.")
    add_options(adopt, _WHERE)
    adopt.add_argument("--owner", required=True, metavar="NAME", help="principal: whose they shall be")
    which = adopt.add_mutually_exclusive_group(required=True)
    which.add_argument("--batch", metavar="ID", help="a batch, with its files")
    which.add_argument("--file", metavar="ID", help="a file that is in no batch")
    which.add_argument("--all", action="store_true", help="all that have no owner")


def _add_token(commands: Commands) -> None:
    text = "static tokens of callers"
    token = commands.add_parser("token", help=text, description=text)
    tokens = token.add_subparsers(dest="token_command", metavar="COMMAND", required=True)
    text = "print a new token, once, and append its hash to the tokens file"
    create = tokens.add_parser("create", help=text, description=f"{text.capitalize()}.")
    create.add_argument("name", metavar="NAME", help="principal: whose uploads they are, and who the trail names")
    create.add_argument(
        "--role", default="user", metavar="ROLES", help="user, operator, auditor, monitor (default user)"
    )
    create.add_argument(
        "--expires", type=_duration, metavar="DURATION", help="as 90d; without it the token is for ever"
    )
    create.add_argument("--quota", default="", metavar="NAME", help="name of quotas of its own")
    add_options(create, ("tokens_file",))


def _duration(text: str) -> float:
    try:
        return parse_seconds(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def parse_anchor(text: str) -> tuple[int, str]:
    """Read ``EVENT_ID:HASH``."""
    number, _, digest = text.partition(":")
    if not (number.isascii() and number.isdecimal()):
        raise argparse.ArgumentTypeError("must be EVENT_ID:HASH")
    return int(number), parse_hash(digest)


def parse_hash(text: str) -> str:
    """Read a SHA-256 in hex."""
    if len(text) != _SHA256_HEX or not set(text) <= set(string.hexdigits):
        raise argparse.ArgumentTypeError("a hash is 64 hexadecimal digits")
    return text.lower()
