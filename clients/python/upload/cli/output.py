"""Decides how results look: aligned text for people, JSON lines for programs, one sentence for an error.

JSON has the contract's field names and lower-case state words; numbers are numbers, absent times are null.
"""

from __future__ import annotations

import json
import os
import re
import sys
import unicodedata
from collections.abc import Mapping
from dataclasses import fields
from datetime import datetime
from typing import TextIO

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from upload.cancelling import CancelledBatch, CancelledFile
from upload.errors import UploadServiceError
from upload.statuses import by_whom
from upload.v1 import upload_pb2 as pb

Json = Mapping[str, object]

_PREFIXES = {"UploadStatus": "UPLOAD_STATUS_", "BatchStatus": "BATCH_STATUS_"}
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
# What Python calls printable and fonts leave out: fillers, joiners and selectors, and blanks of Braille and music.
_BRAILLE_BLANK = "\u2800"
_UNSEEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0d\uffa0\U0001d159\U000e0100-\U000e01ef]"
)
# They choose whether the symbol before them has a colour; after anything else they are not to be seen.
_SELECTORS = "\ufe0e\ufe0f"
_BLANK = re.compile("^ |(?<= ) | $")


def as_json(message: Message) -> dict[str, object]:
    """Return a resource of the service as JSON values."""
    return {field.name: _value(message, field.name) for field in message.DESCRIPTOR.fields}


def _value(message: Message, name: str) -> object:
    value: object = getattr(message, name)
    field = message.DESCRIPTOR.fields_by_name[name]
    if isinstance(value, Timestamp):
        return value.ToJsonString() if message.HasField(name) else None
    if field.enum_type is not None and isinstance(value, int):
        word: str = field.enum_type.values_by_number[value].name
        return word.removeprefix(_PREFIXES[field.enum_type.name]).lower()
    return value


def outcome_json(outcome: CancelledFile | CancelledBatch) -> dict[str, object]:
    """Return a cancel's outcome as JSON values."""
    values = {field.name: getattr(outcome, field.name) for field in fields(outcome)}
    return {name: _time(value) if isinstance(value, datetime) else value for name, value in values.items()}


def error_json(error: Exception) -> dict[str, object]:
    """Return an error as JSON values."""
    if isinstance(error, UploadServiceError):
        return {"reason": error.reason, "message": str(error), "metadata": error.metadata}
    return {"reason": type(error).__name__, "message": sentence(error), "metadata": {}}


def sentence(error: Exception) -> str:
    """Say in one sentence what happened."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"Cannot read {error.filename}: {error.strerror}."
    return str(error)


def _time(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


def size_text(count: float) -> str:
    """Return a number of bytes for people."""
    for unit in _UNITS:
        if count < 1024 or unit == _UNITS[-1]:  # noqa: PLR2004 - the step of the units
            break
        count /= 1024
    return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"


def printable(text: str) -> str:
    """Return text that cannot steer a terminal nor hide anything: such characters stand as JSON escapes them."""
    if text.isascii() and text.isprintable():
        return text
    pairs = zip(" " + text, text, strict=False)
    return "".join(_escaped(char) if _hides(char, before) else char for before, char in pairs)


def visible(text: str) -> str:
    """Return a caller's text printable, without spaces and marks that show nothing where they stand.

    The TypeScript client's ``visible`` shows the same text in the same way.
    """
    shown = printable(text)
    if text and unicodedata.category(text[0]).startswith("M") and shown.startswith(text[0]):
        shown = _escaped(text[0]) + shown[1:]
    return _BLANK.sub(lambda _: _escaped(" "), shown)


def _hides(char: str, before: str) -> bool:
    if char in _SELECTORS:
        return before == _BRAILLE_BLANK or unicodedata.category(before) != "So"
    return not char.isprintable() or _UNSEEN.fullmatch(char) is not None


def _escaped(char: str) -> str:
    units = char.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{high:02x}{low:02x}" for high, low in zip(units[::2], units[1::2], strict=True))


def file_line(file: pb.File) -> str:
    """Return one line on a file."""
    size = (
        size_text(file.size_bytes)
        if file.status == pb.UPLOAD_STATUS_COMPLETED
        else f"{size_text(file.bytes_received)} of {size_text(file.size_bytes)}"
    )
    return f"{file.file_id}  {_value(file, 'status'):<9}  {size:>22}  {visible(file.filename)}{_why(file)}"


def batch_line(batch: pb.Batch) -> str:
    """Return one line on a batch."""
    counts = (
        f"{batch.completed_files} completed, {batch.failed_files} failed, "
        f"{batch.cancelled_files_count} cancelled of {batch.total_files}"
    )
    return f"{batch.batch_id}  {_value(batch, 'status'):<9}  {counts}{_why(batch)}"


def audit_line(event: pb.AuditEvent) -> str:
    """Return one line on a change of status."""
    target = f"file {event.file_id}" if event.file_id else f"batch {event.batch_id}"
    change = f"{event.from_status or '(new)'} -> {event.to_status}"
    why = f"  ({visible(event.reason)})" if event.reason else ""
    return f"{event.occurred_at.ToJsonString():<27}  {target}  {change:<22}  {event.actor} by {event.source}{why}"


def _why(record: pb.File | pb.Batch) -> str:
    if record.cancelled_by:
        reason = f": {visible(record.cancel_reason)}" if record.cancel_reason else ""
        return f"  ({by_whom(record.cancelled_by)}{reason})"
    failure = record.failure_reason if isinstance(record, pb.File) else ""
    return f"  ({failure})" if failure else ""


class Output:
    """Writes results to stdout and everything else to stderr, each line at once."""

    def __init__(self, *, json_lines: bool, out: TextIO | None = None, err: TextIO | None = None) -> None:
        self.json_lines = json_lines
        self._out = out or sys.stdout
        self._err = err or sys.stderr

    @property
    def terminal(self) -> bool:
        """Whether a person reads the results."""
        return self._out.isatty()

    @property
    def live(self) -> bool:
        """Whether a person reads the notes."""
        return self._err.isatty() and not self.json_lines

    def result(self, values: Json, text: str) -> None:
        """Write one result: its values, or its text."""
        line = printable(json.dumps(values, ensure_ascii=False) if self.json_lines else text)
        print(line, file=self._out, flush=True)

    def details(self, values: Json) -> None:
        """Write one result: its values, or a line for each."""
        if self.json_lines:
            self.result(values, "")
            return
        for name, value in values.items():
            print(f"{name + ':':<23} {visible(str('' if value is None else value))}", file=self._out)

    def note(self, event: str, text: str, **values: object) -> None:
        """Write a note beside the results."""
        line = json.dumps({"event": event, "message": text, **values}) if self.json_lines else printable(text)
        self._say(line)

    def error(self, error: Exception) -> None:
        """Say in one sentence what went wrong."""
        line = json.dumps({"error": error_json(error)}) if self.json_lines else printable(sentence(error))
        self._say(line if self.json_lines else f"uploadctl: {line}")

    def _say(self, line: str) -> None:
        try:
            print(line, file=self._err, flush=True)
        except OSError:
            # The terminal was closed, or the reader of the pipe has left: a cancel must reach the server all the same.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._err.fileno())
