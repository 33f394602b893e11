"""Decides whether an audit chain holds, and says in plain words where it breaks first.

Must not know which database it lies in. Reads a page at a time, so that memory stays the same however long it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path

from upload_server.domain.chain import Seal, link, origin
from upload_server.domain.errors import CannotStart
from upload_server.store.inspection import AuditLink, Inspection
from upload_server.upkeep.audit.pruned import Exported, read_pruned, seal_of

_PAGE = 1000
# Below every number there can be: one below 1 is none of ours, and must not hide.
_START = -(2**63)


class Break(StrEnum):
    """What happened at the first broken link."""

    CHANGED = "changed"
    SEAL_CHANGED = "seal_changed"
    DELETED = "deleted"
    INSERTED = "inserted"
    SEAL_DELETED = "seal_deleted"
    REORDERED = "reordered"
    BEGINNING = "beginning"
    ANCHOR = "anchor"
    HEAD = "head"


@dataclass(frozen=True, slots=True)
class Broken:
    """The first broken link."""

    event_id: int
    what: Break
    text: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found. ``head`` is the newest seal that holds; the unsealed tail is counted, with its ends.

    ``begins_behind``: the last event that was pruned; ``pruned``: how many exported ones lead there.
    """

    begins_behind: int = 0
    pruned: int = 0
    sealed: int = 0
    head: Seal | None = None
    unsealed: int = 0
    first_unsealed: int = 0
    last_unsealed: int = 0
    broken: Broken | None = None


@dataclass(frozen=True, slots=True)
class Expected:
    """What an operator kept elsewhere: hashes in hex by event id, the newest hash, and files and folders of what was
    pruned."""

    anchors: Mapping[int, str] = field(default_factory=dict)
    head: str = ""
    pruned: Sequence[Path] = ()


class NotLookedAt(CannotStart):
    """An anchor lies in what was pruned, and nobody has said where that is."""

    def __init__(self, event_id: int) -> None:
        super().__init__(f"--anchor: event {event_id} was pruned; name the folder of the exports with --pruned")


def walk(inspection: Inspection, after: int = _START) -> Iterator[AuditLink]:
    """Read the places of the chain after an event, in order.

    A snapshot a page, so that a running server's log can be cut back meanwhile: the trail is only added to, and taken
    from its old end. What was sealed when a walk began stays the end of what is judged.
    """
    while page := inspection.links(after, _PAGE):
        yield from page
        after = page[-1].event_id
        inspection.refresh()


def verify(inspection: Inspection, expected: Expected | None = None) -> Verdict:
    """Follow the chain from its beginning up to the first broken link; that of what was pruned where it is named.

    Raises ``NotLookedAt``, and OSError for what is named and cannot be read.
    """
    return _Verifier(inspection, expected or Expected()).run()


class _Verifier:
    def __init__(self, inspection: Inspection, expected: Expected) -> None:
        self._inspection = inspection
        self._expected = expected
        newest = inspection.seal_head()
        # What was sealed when we began: behind it an event without a seal is only late.
        self._end = newest.event_id if newest else 0
        self._origin = inspection.origin()
        self._verdict = Verdict(begins_behind=self._origin.event_id)

    def run(self) -> Verdict:
        broken = self._before()
        if broken is not None:
            return replace(self._verdict, broken=broken)
        for place in walk(self._inspection):
            if place.event_id > self._end:
                self._late(place)
                continue
            broken = self._follow(place)
            if broken is not None:
                return replace(self._verdict, broken=broken)
        return replace(self._verdict, broken=self._beyond())

    def _before(self) -> Broken | None:
        """Check what was pruned, as far as anything is known of it: the export, else its last hash."""
        begin = self._origin
        if not self._expected.pruned:
            early = [number for number in self._expected.anchors if number < begin.event_id]
            if early:
                raise NotLookedAt(min(early))
            return self._against_anchor(begin)
        head = Seal(0, 0, origin(self._inspection.store_id()))
        awaited = {number for number in self._expected.anchors if 0 < number <= begin.event_id}
        try:
            for line in read_pruned(self._expected.pruned):
                # What lies behind the origin was exported, and not taken.
                if line.event_id > begin.event_id:
                    break
                # Once more, after a try that was interrupted.
                if line.event_id <= head.event_id:
                    continue
                broken = self._follow_exported(line, head)
                if broken is not None:
                    return broken
                head = seal_of(line, head)
                awaited.discard(head.event_id)
        except ValueError as error:
            return Broken(head.event_id, Break.CHANGED, f"the export was changed behind event {head.event_id}: {error}")
        if (head.event_id, head.hash) != (begin.event_id, begin.hash):
            text = f"the export ends with event {head.event_id}, and does not lead to event {begin.event_id}"
            return Broken(head.event_id, Break.BEGINNING, f"{text}, behind which the trail begins")
        if awaited:
            text = f"event {min(awaited)} was sealed, and no such event is in the export: it was written anew"
            return Broken(min(awaited), Break.ANCHOR, text)
        return None

    def _follow_exported(self, line: Exported, head: Seal) -> Broken | None:
        number = line.event_id
        if not line.holds:
            return Broken(number, Break.CHANGED, f"event {number} of the export was changed: it is not what was sealed")
        if line.previous != head.hash.hex():
            text = f"event {number} of the export does not follow event {head.event_id}: what lay between is missing"
            return Broken(number, Break.DELETED, text)
        self._verdict = replace(self._verdict, pruned=self._verdict.pruned + 1)
        return self._against_anchor(seal_of(line, head))

    def _against_anchor(self, seal: Seal) -> Broken | None:
        kept = self._expected.anchors.get(seal.event_id)
        if kept is None or kept == seal.hash.hex():
            return None
        text = f"event {seal.event_id} has another hash than the one that was kept: the chain was written anew up to it"
        return Broken(seal.event_id, Break.ANCHOR, text)

    def _late(self, place: AuditLink) -> None:
        if place.seal is None:
            seen = self._verdict
            first = seen.first_unsealed or place.event_id
            self._verdict = replace(
                seen, unsealed=seen.unsealed + 1, first_unsealed=first, last_unsealed=place.event_id
            )

    def _follow(self, place: AuditLink) -> Broken | None:
        """Check one sealed place against the one before it; None when the link holds."""
        number, seal = place.event_id, place.seal
        before = self._verdict.head or self._origin
        if number <= self._origin.event_id:
            text = f"event {number} was inserted: the store's numbers begin at {self._origin.event_id + 1}"
            return Broken(number, Break.INSERTED, text)
        if seal is None:
            return self._without_seal(number)
        if seal.previous_id != before.event_id:
            moved = self._inspection.origin()
            if moved.event_id <= before.event_id or moved.event_id != seal.previous_id:
                return self._gap(before, seal)
            # Retention took what lay between since the page before.
            before = self._origin = moved
        return self._judge(place, before, seal)

    def _judge(self, place: AuditLink, before: Seal, seal: Seal) -> Broken | None:
        number = place.event_id
        if place.event is None and not place.problem:
            return Broken(number, Break.DELETED, f"event {number} was deleted: its seal is there, the event is not")
        expected = link(place.event, before.hash) if place.event is not None else None
        if expected != seal.hash:
            return self._mismatch(place, before, seal, expected)
        broken = self._against_anchor(seal)
        if broken is not None:
            return broken
        self._verdict = replace(self._verdict, sealed=self._verdict.sealed + 1, head=seal)
        return None

    def _without_seal(self, number: int) -> Broken:
        following = next((place.seal for place in walk(self._inspection, number) if place.seal is not None), None)
        if following is not None and following.previous_id >= number:
            text = f"the seal of event {number} was deleted: event {following.event_id} was sealed after it"
            return Broken(number, Break.SEAL_DELETED, text)
        text = f"event {number} was inserted: it has no seal, and later events were sealed without it"
        return Broken(number, Break.INSERTED, text)

    def _gap(self, before: Seal, seal: Seal) -> Broken:
        number, previous = seal.event_id, seal.previous_id
        if previous == 0:
            text = f"events before {number} were inserted: event {number} was sealed as the first of the chain"
            return Broken(before.event_id, Break.INSERTED, text)
        if before is self._origin:
            text = (
                f"the beginning of the chain was deleted: its first event is {number}, which follows event {previous}"
            )
            return Broken(previous, Break.BEGINNING, text)
        if previous > before.event_id:
            text = f"event {previous} was deleted together with its seal: event {number} was sealed after it"
            if previous > before.event_id + 1:
                text += f" (the last one before that is {before.event_id})"
            return Broken(previous, Break.DELETED, text)
        text = f"event {before.event_id} was inserted with a seal: event {number} was sealed after event {previous}"
        return Broken(before.event_id, Break.INSERTED, text)

    def _mismatch(self, place: AuditLink, before: Seal, seal: Seal, expected: bytes | None) -> Broken:
        number = place.event_id
        if place.problem:
            return Broken(number, Break.CHANGED, f"event {number} was changed: {place.problem}")
        if expected is not None and self._next_follows(number, expected):
            text = f"the seal of event {number} was changed; the event itself is as it was sealed"
            return Broken(number, Break.SEAL_CHANGED, text)
        moved_to = self._found_elsewhere(number, before.hash, seal.hash)
        if moved_to:
            text = f"events were reordered: what was sealed as event {number} is found at event {moved_to}"
            return Broken(number, Break.REORDERED, text)
        text = f"event {number} was changed: it is not what was sealed"
        if place.event is not None and not place.event.file_id and not place.event.batch_id:
            text += "; the file or batch that it is about is gone"
        if before is self._origin:
            text += " (it is the first of the chain: a changed identity of the store would show here, too)"
        return Broken(number, Break.CHANGED, text)

    def _next_follows(self, number: int, digest: bytes) -> bool:
        """Whether the next event was sealed after an event with this hash."""
        following = next(walk(self._inspection, number), None)
        if following is None or following.event is None or following.seal is None:
            return False
        return following.seal.previous_id == number and link(following.event, digest) == following.seal.hash

    def _found_elsewhere(self, number: int, previous: bytes, digest: bytes) -> int:
        """The later event that carries what was sealed as ``number``, 0 if there is none. Happens once at most."""
        for place in walk(self._inspection, number):
            if place.event is not None and link(place.event._replace(event_id=number), previous) == digest:
                return place.event_id
        return 0

    def _beyond(self) -> Broken | None:
        """What was kept elsewhere and is not in the chain any more."""
        head = self._verdict.head
        number = (head or self._origin).event_id
        lost = sorted(kept for kept in self._expected.anchors if kept > number)
        if lost:
            text = f"the end of the chain was deleted: event {lost[0]} was sealed, and the chain now ends at {number}"
            return Broken(lost[0], Break.ANCHOR, text)
        unknown = self._unknown_anchor()
        if unknown:
            text = f"event {unknown} was sealed, and no such event is in the chain: it was written anew"
            return Broken(unknown, Break.ANCHOR, text)
        if self._expected.head and (head is None or head.hash.hex() != self._expected.head):
            text = f"the chain does not end with the hash that was kept; it ends at event {number}"
            return Broken(number, Break.HEAD, text)
        return None

    def _unknown_anchor(self) -> int:
        for number in sorted(number for number in self._expected.anchors if number > self._origin.event_id):
            places: Sequence[AuditLink] = self._inspection.links(number - 1, 1)
            if not places or places[0].event_id != number or places[0].seal is None:
                return number
        return 0
