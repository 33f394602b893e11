"""Decides how the audit trail is written out: one JSON object a line, with all fields and hashes.

Must not know where the lines go. A line without its ``hash`` is the canonical form that the hash was made of.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from upload_server.store.inspection import Inspection
from upload_server.upkeep.audit.pruned import line_of
from upload_server.upkeep.audit.verify import walk


def lines(inspection: Inspection, after: int = 0) -> Iterator[bytes]:
    """Write the events after an event id, a line each; what is not sealed yet has an empty ``hash``.

    Nothing is judged here: ``verify`` does that. An event that cannot be read has only ``event_id`` and ``problem``.
    """
    newest, begin = inspection.seal_head(), inspection.origin()
    end = newest.event_id if newest else 0
    previous = b""
    if after <= begin.event_id:
        previous = begin.hash
    else:
        # A place before: its seal is what the first line carries.
        places = inspection.links(after - 1, 1)
        if places and places[0].event_id == after and places[0].seal is not None:
            previous = places[0].seal.hash
    last = max(after, begin.event_id)
    for place in walk(inspection, after) if after else walk(inspection):
        # Seals that were added since then are left out: each line agrees with the one before it.
        digest = place.seal.hash if place.seal and place.event_id <= end else b""
        if place.seal and place.seal.previous_id > last and (moved := inspection.origin()).event_id > last:
            # Retention took what lay between since the page before: it is in its own export.
            previous = moved.hash
        if place.event is not None:
            yield line_of(place.event, previous, digest)
        else:
            problem = place.problem or "deleted: only its seal is there"
            line = {"event_id": str(place.event_id), "problem": problem, "hash": digest.hex()}
            yield json.dumps(line).encode() + b"\n"
        previous, last = digest, place.event_id
