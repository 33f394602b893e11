"""Cursors of callers: a token that was not made here is refused, whatever it holds."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from upload_server.domain.errors import InvalidField
from upload_server.domain.tokens import Cursor, decode_page_token, encode_page_token

QUERY = "files"


@pytest.mark.parametrize("cursor", [Cursor(1), Cursor(2**63 - 1), Cursor.at(datetime.max.replace(tzinfo=UTC), 7)])
def test_a_page_token_gives_its_cursor_back(cursor: Cursor) -> None:
    assert decode_page_token(encode_page_token(cursor, QUERY), QUERY) == cursor


@pytest.mark.parametrize(
    "cursor", [Cursor(2**63), Cursor(2**64 - 1), Cursor(1, 253_402_300_800_000_000), Cursor(1, 2**64 - 1)]
)
def test_a_cursor_that_no_row_can_have_is_refused(cursor: Cursor) -> None:
    """The database would refuse it too, but as an error of the server's own."""
    with pytest.raises(InvalidField, match="page_token"):
        decode_page_token(encode_page_token(cursor, QUERY), QUERY)


def test_a_token_of_another_query_is_refused() -> None:
    with pytest.raises(InvalidField, match="page_token"):
        decode_page_token(encode_page_token(Cursor(1), QUERY), "audit")
