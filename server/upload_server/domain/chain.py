"""Decides what a link of the audit chain is: the canonical form of an event, and its SHA-256.

Must not know where links are kept. docs/audit-chain.md describes the form byte by byte, with test vectors; it is a
promise to those who kept hashes or exports, so it never changes: another form would need another format number in the
chain's origin.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC

from upload_server.domain.states import AuditEvent

_FORMAT = 1
_ESCAPES = {chr(code): f"\\u{code:04x}" for code in range(0x20)} | {
    "\b": r"\b",
    "\t": r"\t",
    "\n": r"\n",
    "\f": r"\f",
    "\r": r"\r",
    '"': r"\"",
    "\\": r"\\",
}
_ESCAPED = str.maketrans(_ESCAPES)


@dataclass(frozen=True, slots=True)
class Seal:
    """A link of the audit chain: an event's hash, which covers that of the event before it."""

    event_id: int
    # The event it follows, 0 for the first.
    previous_id: int
    # 32 bytes of SHA-256.
    hash: bytes


def quoted(text: str) -> str:
    """Return a string of the canonical form, quotes included."""
    # Nearly every text is like this, and is looked through three times faster than translated.
    if text.isprintable() and '"' not in text and "\\" not in text:
        return f'"{text}"'
    return f'"{text.translate(_ESCAPED)}"'


def origin(store_id: str) -> bytes:
    """Return what the first event carries as the hash before it: it binds the chain to its store."""
    return hashlib.sha256(f'{{"format":{_FORMAT},"store_id":{quoted(store_id)}}}'.encode()).digest()


def form_of(event: AuditEvent, previous: bytes) -> bytes:
    """Return the canonical form: the fields as the API shows them and the hash of the event before, as JSON.

    ``credential``, ``filename`` (of a file's creation alone) and ``peer`` are there when they are set: so what was
    hashed before there were any keeps its hash.
    Keys sorted, no white space, UTF-8 unescaped. Put together by hand: a promise must not hang on the escapes of a
    library, and it costs a third of an encoder that sorts; sealing shares its core with the cancels that it seals.
    """
    at = event.occurred_at.astimezone(UTC).isoformat(timespec="microseconds").removesuffix("+00:00")
    credential = f',"credential":{quoted(event.credential)}' if event.credential else ""
    peer = f',"peer":{quoted(event.peer)}' if event.peer else ""
    filename = f',"filename":{quoted(event.filename)}' if event.filename and not event.from_status else ""
    text = (
        f'{{"actor":{quoted(event.actor)},"batch_id":{quoted(event.batch_id)}{credential},"event_id":"{event.event_id}"'
        f',"file_id":{quoted(event.file_id)}{filename},"from_status":{quoted(event.from_status)},"occurred_at":"{at}Z"{peer}'
        f',"previous_hash":"{previous.hex()}","reason":{quoted(event.reason)}'
        f',"request_id":{quoted(event.request_id)},"source":{quoted(event.source)}'
        f',"to_status":{quoted(event.to_status)}}}'
    )
    # Bytes of a damaged database that are no UTF-8 are hashed as they are; they then match no seal.
    return text.encode("utf-8", "surrogateescape")


def link(event: AuditEvent, previous: bytes) -> bytes:
    """Return the hash of an event that follows the one with hash ``previous``."""
    return hashlib.sha256(form_of(event, previous)).digest()


def seals_of(events: Iterable[AuditEvent], head: Seal | None, store_id: str) -> list[Seal]:
    """Return the seals of events that follow ``head``, in order."""
    previous = head or Seal(0, 0, origin(store_id))
    seals = []
    for event in events:
        previous = Seal(event.event_id, previous.event_id, link(event, previous.hash))
        seals.append(previous)
    return seals
