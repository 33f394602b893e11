"""The canonical form of an audit event: docs/audit-chain.md's test vectors, and json.dumps as a second opinion."""

from __future__ import annotations

import hashlib
import json
import re
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from upload_server.domain.chain import form_of, link, origin, quoted, seals_of
from upload_server.domain.states import AuditEvent

DOCUMENT = (Path(__file__).parents[3] / "docs" / "audit-chain.md").read_text(encoding="utf-8")
[(STORE_ID, ORIGIN)] = re.findall(r"Of the store `([^`]+)`, whose origin is\s`([0-9a-f]{64})`", DOCUMENT)
BLOCK = DOCUMENT.split("```text\n")[1].split("```")[0].splitlines()
CHAIN = list(zip(BLOCK[::2], BLOCK[1::2], strict=True))
NAMED, NAMED_DIGEST = DOCUMENT.split("```text\n")[2].split("```")[0].splitlines()
STRINGS = [
    (reason, written, digest)
    for reason, written, digest in re.findall(
        r"^\| [^|]+ \| `?([0-9a-f]*)`? \| `([0-9a-f]+)` \| `([0-9a-f]{64})` \|$", DOCUMENT, re.MULTILINE
    )
]


def event_of(form: str) -> AuditEvent:
    fields = json.loads(form)
    del fields["previous_hash"]
    occurred_at = datetime.fromisoformat(fields.pop("occurred_at"))
    return AuditEvent(int(fields.pop("event_id")), occurred_at=occurred_at, **fields)


def test_the_document_has_its_vectors() -> None:
    assert len(CHAIN) == 3
    assert len(STRINGS) == 13


def test_the_origin_is_that_of_the_document() -> None:
    assert origin(STORE_ID).hex() == ORIGIN
    assert hashlib.sha256(f'{{"format":1,"store_id":"{STORE_ID}"}}'.encode()).hexdigest() == ORIGIN


def test_the_chain_is_that_of_the_document() -> None:
    previous = bytes.fromhex(ORIGIN)
    for form, digest in CHAIN:
        assert form_of(event_of(form), previous) == form.encode()
        previous = bytes.fromhex(digest)
    seals = seals_of([event_of(form) for form, _ in CHAIN], None, STORE_ID)
    assert [seal.hash.hex() for seal in seals] == [digest for _, digest in CHAIN]


def test_an_event_of_a_caller_with_a_name_says_what_proved_it_and_one_without_is_as_before() -> None:
    event, previous = event_of(NAMED), bytes.fromhex(CHAIN[1][1])
    assert (event.credential, event.peer) == ("token:ab12cd34", "192.0.2.7")
    assert form_of(event, previous) == NAMED.encode()
    assert link(event, previous).hex() == NAMED_DIGEST
    assert b"credential" not in form_of(event._replace(credential=""), previous)
    assert b"peer" not in form_of(event._replace(peer=""), previous)


@pytest.mark.parametrize(("reason", "written", "digest"), STRINGS)
def test_a_string_is_written_as_in_the_document(reason: str, written: str, digest: str) -> None:
    text = bytes.fromhex(reason).decode("utf-8", "surrogateescape")
    event = event_of(CHAIN[0][0])._replace(reason=text)
    assert quoted(text).encode("utf-8", "surrogateescape").hex() == written
    assert b'"reason":' + bytes.fromhex(written) + b',"request_id"' in form_of(event, b"")
    assert link(event, bytes.fromhex(ORIGIN)).hex() == digest


@given(st.text())
@example("".join(map(chr, range(0x180))))
@example("\u2028\u2029\ufeff\uffff\U0010ffff\udc80")
def test_every_string_is_as_json_has_it(text: str) -> None:
    assert quoted(text) == json.dumps(text, ensure_ascii=False)


TEXTS = ("file_id", "batch_id", "from_status", "to_status", "actor", "source", "reason", "request_id")
# Left out where they are empty.
LEFT_OUT = ("credential", "filename", "peer")
# Years of one to four digits, times before and after noon of any zone.
TIMES = st.integers(-62_100_000_000_000_000, 253_300_000_000_000_000).map(
    lambda microseconds: datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)
)


@given(
    st.builds(
        AuditEvent,
        event_id=st.integers(1, 2**63 - 1),
        occurred_at=TIMES,
        **dict.fromkeys((*TEXTS, *LEFT_OUT), st.text(st.characters(exclude_categories=["Cs"]))),
    ),
    st.binary(min_size=32, max_size=32),
)
def test_every_form_is_what_a_reader_makes_of_the_fields(event: AuditEvent, previous: bytes) -> None:
    at = event.occurred_at
    fields = {name: getattr(event, name) for name in TEXTS} | {
        "event_id": str(event.event_id),
        "occurred_at": f"{at.year:04}-{at.month:02}-{at.day:02}T{at:%H:%M:%S.%f}Z",
        "previous_hash": previous.hex(),
    }
    fields |= {name: getattr(event, name) for name in LEFT_OUT if getattr(event, name)}
    if event.from_status:
        # The name is the creation's.
        fields.pop("filename", None)
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert form_of(event, previous) == text.encode()
    elsewhere = event._replace(occurred_at=at.astimezone(timezone(timedelta(hours=5, minutes=45))))
    assert form_of(elsewhere, previous) == text.encode()
