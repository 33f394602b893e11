"""Decides whether a program may work on a schema that a newer one has migrated.

Must not know where a schema is. A program's level is the number of the last step that it knows; a step says by `BEARS`
which level of program its schema still bears, and without a word it bears none before its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from playhouse.migrations import Migration

from upload_server.domain.errors import CannotStart


class SchemaTooNew(CannotStart):
    """The database was migrated by a newer program, and does not bear this one any more."""

    def __init__(self, what: object, steps: Sequence[str], least: int) -> None:
        borne = f", and bears programs from level {least} on alone" if least else ""
        super().__init__(
            f"{what} was migrated by a newer upload-server ({', '.join(steps)}){borne}; install that version, or"
            " restore the backup from before"
        )


def least_level(folder: Path, upto: str | None = None) -> int:
    """Return the lowest level of program that the schema of a folder's steps bears, or of its steps up to one."""
    steps = Migration.load_directory(str(folder))
    return max(
        (getattr(step.load(), "BEARS", step.idx) for step in steps if upto is None or step.name <= upto), default=0
    )


def check_level(what: object, folder: Path, unknown: Sequence[str], least: int) -> None:
    """Raise ``SchemaTooNew`` unless the program whose steps are in a folder is borne by a schema with ``unknown`` steps
    that bears programs from the level ``least`` on; 0: it does not say."""
    own = max(step.idx for step in Migration.load_directory(str(folder)))
    if unknown and not 0 < least <= own:
        raise SchemaTooNew(what, unknown, least)
