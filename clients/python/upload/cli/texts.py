"""Decides how values look to people: sizes, names that hide nothing, one line for each record."""

from __future__ import annotations

import re
import unicodedata
from datetime import UTC, datetime

from upload.errors import UploadServiceError
from upload.records import AuditEvent, Batch, File, UploadStatus
from upload.statuses import by_whom

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
# What Python calls printable and fonts leave out: fillers, joiners and selectors, and blanks of Braille and music.
_BRAILLE_BLANK = "\u2800"
_UNSEEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0d\uffa0\U0001d159\U000e0100-\U000e01ef]"
)
# They choose whether the symbol before them has a colour; after anything else they are not to be seen.
_SELECTORS = "\ufe0e\ufe0f"
_BLANK = re.compile("^ |(?<= ) | $")

FILE_HEAD = f"{'FILE ID':<36}  {'STATUS':<9}  {'SIZE':>22}  {'CREATED (UTC)':<19}  NAME"
BATCH_HEAD = f"{'BATCH ID':<36}  {'STATUS':<10}  {'CREATED (UTC)':<19}  FILES"
AUDIT_HEAD = f"{'WHEN':<27}  {'WHAT':<42}  {'CHANGE':<22}  BY"


def sentence(error: Exception) -> str:
    """Say in one sentence what happened."""
    if isinstance(error, UploadServiceError) or not isinstance(error, OSError) or error.filename is None:
        return str(error)
    return f"Cannot read {error.filename}: {error.strerror}."


def size_text(count: float) -> str:
    """Return a number of bytes for people."""
    for unit in _UNITS:
        if count < 1024 or unit == _UNITS[-1]:  # noqa: PLR2004 - the step of the units
            break
        count /= 1024
    return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"


def clock_text(moment: datetime | None) -> str:
    """Return a time for people, in UTC."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}" if moment else ""


def rfc3339(moment: datetime) -> str:
    """Return a time as the service's JSON has it."""
    digits = 0 if not moment.microsecond else 3 if moment.microsecond % 1000 == 0 else 6
    text = moment.astimezone(UTC).isoformat(timespec=("seconds", "milliseconds", "microseconds")[digits // 3])
    return text.replace("+00:00", "Z")


def printable(text: str) -> str:
    """Return text that cannot steer a terminal nor hide anything: such characters stand as JSON escapes them."""
    if text.isascii() and text.isprintable():
        return text
    pairs = zip(" " + text, text, strict=False)
    return "".join(escaped(char) if _hides(char, before) else char for before, char in pairs)


def visible(text: str) -> str:
    """Return a caller's text printable, without spaces and marks that show nothing where they stand.

    The TypeScript client's ``visible`` shows the same text in the same way.
    """
    shown = printable(text)
    if text and unicodedata.category(text[0]).startswith("M") and shown.startswith(text[0]):
        shown = escaped(text[0]) + shown[1:]
    return _BLANK.sub(lambda _: escaped(" "), shown)


def _hides(char: str, before: str) -> bool:
    if char in _SELECTORS:
        return before == _BRAILLE_BLANK or unicodedata.category(before) != "So"
    return not char.isprintable() or _UNSEEN.fullmatch(char) is not None


def escaped(text: str) -> str:
    """Return each character as JSON escapes it."""
    units = text.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{high:02x}{low:02x}" for high, low in zip(units[::2], units[1::2], strict=True))


def file_line(file: File) -> str:
    """Return one line on a file."""
    size = (
        size_text(file.size_bytes)
        if file.status is UploadStatus.COMPLETED
        else f"{size_text(file.bytes_received)} of {size_text(file.size_bytes)}"
    )
    created = clock_text(file.created_at)
    return f"{file.file_id}  {file.status:<9}  {size:>22}  {created:<19}  {visible(file.filename)}{_why(file)}"


def batch_line(batch: Batch) -> str:
    """Return one line on a batch."""
    counts = (
        f"{batch.completed_files} completed, {batch.failed_files} failed, "
        f"{batch.cancelled_files_count} cancelled of {batch.total_files}"
    )
    return f"{batch.batch_id}  {batch.status:<10}  {clock_text(batch.created_at):<19}  {counts}{_why(batch)}"


def audit_line(event: AuditEvent) -> str:
    """Return one line on a change of status."""
    target = f"file {event.file_id}" if event.file_id else f"batch {event.batch_id}"
    change = f"{event.from_status or '(new)'} -> {event.to_status}"
    why = f"  ({visible(event.reason)})" if event.reason else ""
    when = rfc3339(event.occurred_at) if event.occurred_at else ""
    return f"{when:<27}  {target:<42}  {change:<22}  {event.actor} by {event.source}{why}"


def _why(record: File | Batch) -> str:
    if record.cancelled_by:
        reason = f": {visible(record.cancel_reason)}" if record.cancel_reason else ""
        return f"  ({by_whom(record.cancelled_by)}{reason})"
    if isinstance(record, File) and record.content_deleted_by:
        return f"  (bytes let go {by_whom(record.content_deleted_by)})"
    failure = record.failure_reason if isinstance(record, File) else ""
    return f"  ({failure})" if failure else ""
