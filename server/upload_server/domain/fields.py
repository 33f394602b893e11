"""Decides what callers may put into the fields of a request: one rule per field, each with its bound.

Must not know what is done with them. Rules collect violations, so that a caller hears of all at once.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from datetime import datetime

from upload_server.domain.errors import FieldViolation, InvalidField
from upload_server.domain.states import FileSpec
from upload_server.domain.statistics import MAX_BUCKETS, MAX_WINDOW_SECONDS, SLOT_SECONDS

# Of a whole name, and of each of its segments.
MAX_FILENAME_BYTES = 4096
MAX_SEGMENT_CHARACTERS = 255
MAX_CONTENT_TYPE_BYTES = 127
MAX_ID_CHARACTERS = 128
MAX_REASON_CHARACTERS = 500
MAX_BATCH_FILES = 10_000
# Of a file that comes whole, in one request.
MAX_PUT_BYTES = 256 * 1024
# Of how names begin, so many characters are compared.
PREFIX_CHARACTERS = 255
# Of an owner, and of a caller by name.
MAX_PRINCIPAL_BYTES = 255
MAX_ACTOR_CHARACTERS = MAX_PRINCIPAL_BYTES + len("user:")
MAX_PAGE_SIZE = 1000
DEFAULT_PAGE_SIZE = 50
MAX_WATCH_TARGETS = 1000
MIN_PROGRESS_SECONDS = 0.1
# Violations beyond these are counted, not listed: an error has to stay small.
_MAX_LISTED = 8

_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
# Most names are short, of ASCII and one segment: they pay for one match, and a batch has 10,000 of them.
_PLAIN_NAME = re.compile(rf"[ -.0-\[\]-~]{{1,{MAX_SEGMENT_CHARACTERS}}}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class Rules:
    """Collects the violations of one request; ``check`` raises them together."""

    def __init__(self) -> None:
        self._violations: list[FieldViolation] = []

    def refuse(self, field: str, description: str, limit: int | None = None) -> None:
        """Note that ``field`` breaks a rule, and the bound that it goes past, if the rule is one."""
        if not self.are_full():
            self._violations.append(FieldViolation(field, description, limit))

    def are_full(self) -> bool:
        """Whether no further violation is noted."""
        return len(self._violations) >= _MAX_LISTED

    def check(self) -> None:
        """Raise ``InvalidField`` if any rule was broken."""
        if self._violations:
            raise InvalidField(self._violations)

    def identifier(self, field: str, value: str, *, optional: bool = False) -> None:
        """An id, which must not be empty unless it is ``optional``; what it names is looked up, not judged."""
        if not value and not optional:
            self.refuse(field, "must not be empty")
        elif len(value) > MAX_ID_CHARACTERS:
            self.refuse(field, f"must be at most {MAX_ID_CHARACTERS} characters", MAX_ID_CHARACTERS)

    def request_id(self, value: str) -> None:
        """The caller's own id of a request, or empty."""
        if len(value) > MAX_ID_CHARACTERS:
            self.refuse("request_id", f"must be at most {MAX_ID_CHARACTERS} characters", MAX_ID_CHARACTERS)
        if "\x00" in value:
            self.refuse("request_id", "must not contain NUL")

    def reason(self, value: str) -> None:
        """The words of someone who cancels."""
        if len(value) > MAX_REASON_CHARACTERS:
            self.refuse("reason", f"must be at most {MAX_REASON_CHARACTERS} characters", MAX_REASON_CHARACTERS)
        elif "\x00" in value:
            self.refuse("reason", "must not contain NUL")

    def sha256(self, field: str, value: str) -> None:
        """A SHA-256 in hex, or empty."""
        if value and not _SHA256.fullmatch(value):
            self.refuse(field, "must be 64 hexadecimal digits, or empty")

    def spec(self, spec: FileSpec, max_file_bytes: int, prefix: str = "") -> None:
        """What is announced of one file; ``prefix`` is where it stands in the request."""
        self.filename(f"{prefix}filename", spec.filename)
        if not 0 <= spec.size_bytes <= max_file_bytes:
            limit = max_file_bytes if spec.size_bytes > 0 else None
            self.refuse(f"{prefix}size_bytes", f"must be from 0 to {max_file_bytes}", limit)
        self.content_type(f"{prefix}content_type", spec.content_type)
        self.sha256(f"{prefix}sha256", spec.sha256)

    def filename(self, field: str, value: str) -> None:
        """A relative name: data, never a path of ours."""
        if _PLAIN_NAME.fullmatch(value) and value not in {".", ".."}:
            return
        if len(value.encode()) > MAX_FILENAME_BYTES:
            self.refuse(field, f"must be at most {MAX_FILENAME_BYTES} bytes of UTF-8", MAX_FILENAME_BYTES)
        elif any(len(segment) > MAX_SEGMENT_CHARACTERS for segment in value.split("/")):
            rule = f"must have segments of at most {MAX_SEGMENT_CHARACTERS} characters"
            self.refuse(field, rule, MAX_SEGMENT_CHARACTERS)
        elif problem := _filename_problem(value):
            self.refuse(field, problem)

    def data(self, field: str, data: bytes | memoryview, size_bytes: int) -> None:
        """A whole file, with the length that is announced for it."""
        if len(data) > MAX_PUT_BYTES:
            self.refuse(field, f"must be at most {MAX_PUT_BYTES} bytes", MAX_PUT_BYTES)
        elif len(data) != size_bytes:
            self.refuse("size_bytes", f"must be the length of {field}, which is {len(data)} bytes")

    def batch(self, field: str, count: int) -> None:
        """How many files are announced together."""
        if not 1 <= count <= MAX_BATCH_FILES:
            limit = MAX_BATCH_FILES if count else None
            self.refuse(field, f"must be 1 to {MAX_BATCH_FILES} files, not {count}", limit)

    def content_type(self, field: str, value: str) -> None:
        """A media type, not parsed: printable ASCII or nothing."""
        if len(value.encode()) > MAX_CONTENT_TYPE_BYTES:
            self.refuse(field, f"must be at most {MAX_CONTENT_TYPE_BYTES} bytes", MAX_CONTENT_TYPE_BYTES)
        elif not (value.isascii() and value.isprintable()):
            self.refuse(field, "must be printable ASCII")

    def order_by(self, value: str, fields: Sequence[str]) -> bool:
        """Return whether a list that goes by any of ``fields`` begins with the newest."""
        orders = [order for field in fields for order in (field, f"{field} desc")]
        if value and value not in orders:
            self.refuse("order_by", f"must be {' or '.join(map(repr, orders))}, or empty")
        return value.endswith(" desc")

    def filename_prefix(self, value: str) -> None:
        """How names start, or empty; as long as a name may be."""
        if len(value.encode()) > MAX_FILENAME_BYTES:
            self.refuse("filename_prefix", f"must be at most {MAX_FILENAME_BYTES} bytes of UTF-8", MAX_FILENAME_BYTES)
        elif not unicodedata.is_normalized("NFC", value):
            self.refuse("filename_prefix", "must be in Unicode Normalization Form C (NFC)")

    def actor(self, field: str, value: str) -> None:
        """Who did something, or empty; whether anybody is called so is looked up, not judged."""
        if len(value) > MAX_ACTOR_CHARACTERS:
            self.refuse(field, f"must be at most {MAX_ACTOR_CHARACTERS} characters", MAX_ACTOR_CHARACTERS)

    def principal(self, field: str, value: str) -> None:
        """The name of an owner, or empty; whether anybody is called so is looked up, not judged."""
        if len(value.encode()) > MAX_PRINCIPAL_BYTES:
            self.refuse(field, f"must be at most {MAX_PRINCIPAL_BYTES} bytes of UTF-8", MAX_PRINCIPAL_BYTES)

    def word(self, field: str, value: str, words: Iterable[str]) -> None:
        """One of a few words, or empty."""
        if value and value not in set(words):
            self.refuse(field, f"must be one of {', '.join(sorted(set(words)))}, or empty")

    def times(self, what: str, after: datetime | None, before: datetime | None) -> None:
        """Two ends of a time, each of which may be missing."""
        if after is not None and before is not None and after >= before:
            self.refuse(f"{what}_before", f"must be later than {what}_after")

    def buckets(self, window: float, step: float) -> None:
        """How far back statistics reach, in seconds, and in which steps."""
        if not 0 <= window <= MAX_WINDOW_SECONDS:
            limit = MAX_WINDOW_SECONDS if window > 0 else None
            self.refuse("window", f"must be from 0 to {MAX_WINDOW_SECONDS} s", limit)
        elif not window and step:
            self.refuse("step", "must not be set without a window")
        elif window and (step < SLOT_SECONDS or step % SLOT_SECONDS):
            self.refuse("step", f"must be a whole multiple of {SLOT_SECONDS} s")
        elif window and (window % step or window / step > MAX_BUCKETS):
            self.refuse("window", f"must be a whole multiple of step, at most {MAX_BUCKETS} of them")

    def page_size(self, value: int) -> int:
        """Return how many rows a page holds."""
        if not 0 <= value <= MAX_PAGE_SIZE:
            self.refuse("page_size", f"must be from 0 to {MAX_PAGE_SIZE}", MAX_PAGE_SIZE if value > 0 else None)
        return value or DEFAULT_PAGE_SIZE


def check_cancel(field: str, identifier: str, reason: str, request_id: str) -> None:
    """Check the fields of a cancel of what ``identifier`` names; raises ``InvalidField``."""
    # Most cancels are so short altogether that no field can be over its own bound: they pay for no rule.
    text = f"{identifier}{reason}{request_id}"
    if identifier and len(text) <= MAX_ID_CHARACTERS and "\x00" not in text:
        return
    rules = Rules()
    rules.identifier(field, identifier)
    rules.reason(reason)
    rules.request_id(request_id)
    rules.check()


def _filename_problem(value: str) -> str | None:
    """Return the rule that ``value``, of bounded length, breaks, or None."""
    segments = value.split("/")
    rules: Sequence[tuple[bool, str]] = (
        (not value, "must not be empty"),
        (_CONTROL.search(value) is not None, "must not contain control characters"),
        ("\\" in value, "must not contain a backslash"),
        (value.startswith("/"), "must not start with '/'"),
        (any(s in {"", ".", ".."} for s in segments), "must not have an empty, '.' or '..' segment"),
        (not unicodedata.is_normalized("NFC", value), "must be in Unicode Normalization Form C (NFC)"),
    )
    return next((rule for broken, rule in rules if broken), None)
