"""Decides the exit codes of ``uploadctl``: scripts may rely on them."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum

from upload import errors


class Exit(IntEnum):
    """What an exit code means."""

    OK = 0
    SERVER_ERROR = 1
    USAGE = 2
    NOT_FOUND = 3
    TOO_LATE = 4
    CANCELLED = 5
    FAILED = 6
    UNREACHABLE = 7
    DENIED = 8
    HUNG_UP = 129
    INTERRUPTED = 130
    PIPE_CLOSED = 141
    TERMINATED = 143


EXIT_CODES = """\
exit codes:
  0    done
  1    the server could not do it (its own failure), or the results could not be written
  2    wrong usage, an id cut too short, or the server refused a value
  3    no such file or batch
  4    not in its state: too late, it is completed or failed and can no longer be cancelled or written; or it is not
       completed and cannot be downloaded, or its bytes were let go
  5    the upload was cancelled
  6    the upload failed: wrong checksum, the source changed or cannot be read, another sender took over, expired;
       or a download cannot be stored
  7    the server cannot be reached, is overloaded, or did not answer in time
  8    not signed in, not allowed to do that, or a quota is used up
  141  the reader of the results stopped reading
  129, 130, 143
       ended by SIGHUP, Ctrl-C or SIGTERM; what became of the upload is said on stderr
"""

_BY_CLASS: tuple[tuple[type[Exception], Exit], ...] = (
    (errors.NotFound, Exit.NOT_FOUND),
    (errors.NotInState, Exit.TOO_LATE),
    (errors.UploadCancelled, Exit.CANCELLED),
    (errors.UploadFailed, Exit.FAILED),
    (errors.SourceError, Exit.FAILED),
    (errors.WriterReplaced, Exit.FAILED),
    (errors.OffsetMismatch, Exit.FAILED),
    (errors.UploadIncomplete, Exit.FAILED),
    (errors.SizeExceeded, Exit.FAILED),
    (errors.InvalidField, Exit.USAGE),
    (errors.RequestIdReused, Exit.USAGE),
    (errors.AccessDenied, Exit.DENIED),
    (errors.QuotaExceeded, Exit.DENIED),
    (errors.Unavailable, Exit.UNREACHABLE),
    (errors.UploadIdle, Exit.UNREACHABLE),
    (errors.UploadServiceError, Exit.SERVER_ERROR),
    (OSError, Exit.FAILED),
    (ValueError, Exit.USAGE),
)

# Of several files' codes the last of these that occurs is the command's.
_SEVERITY = (
    Exit.OK,
    Exit.CANCELLED,
    Exit.TOO_LATE,
    Exit.NOT_FOUND,
    Exit.USAGE,
    Exit.DENIED,
    Exit.SERVER_ERROR,
    Exit.UNREACHABLE,
    Exit.FAILED,
    Exit.HUNG_UP,
    Exit.INTERRUPTED,
    Exit.TERMINATED,
)


def exit_of(error: Exception) -> Exit:
    """Return the code for an error."""
    return next((code for kind, code in _BY_CLASS if isinstance(error, kind)), Exit.SERVER_ERROR)


def worst(codes: Iterable[Exit]) -> Exit:
    """Return the most telling code of many files."""
    return max(codes, key=_SEVERITY.index, default=Exit.OK)
