"""Cursors of callers: a token that was not made here is refused, whatever it holds."""

from __future__ import annotations

import pytest

from upload_server.domain.errors import InvalidField
from upload_server.domain.tokens import decode_page_token, encode_page_token

QUERY = "files"


@pytest.mark.parametrize("cursor", [1, 2**63 - 1])
def test_a_page_token_gives_its_cursor_back(cursor: int) -> None:
    assert decode_page_token(encode_page_token(cursor, QUERY), QUERY) == cursor


@pytest.mark.parametrize("cursor", [2**63, 2**64 - 1])
def test_a_cursor_that_no_row_can_have_is_refused(cursor: int) -> None:
    """The database would refuse it too, but as an error of the server's own."""
    with pytest.raises(InvalidField, match="page_token"):
        decode_page_token(encode_page_token(cursor, QUERY), QUERY)


def test_a_token_of_another_query_is_refused() -> None:
    with pytest.raises(InvalidField, match="page_token"):
        decode_page_token(encode_page_token(1, QUERY), "audit")
