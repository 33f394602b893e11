"""A long list is worked on a slice a turn."""

from __future__ import annotations

import asyncio

import pytest

from upload_server.domain.errors import InvalidField
from upload_server.domain.fields import MAX_FILENAME_BYTES, MAX_SEGMENT_CHARACTERS, Rules
from upload_server.domain.slices import ROWS, in_slices
from upload_server.domain.states import FileSpec
from upload_server.service import Fields, ListDigest, fingerprint


@pytest.mark.parametrize("count", [0, 1, ROWS, ROWS + 1, 10_000])
async def test_slices_are_the_list_and_others_go_on_between_them(count: int) -> None:
    turns, rows = 0, list(range(count))

    async def go_on() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    other = asyncio.create_task(go_on())
    slices = [some async for some in in_slices(rows)]
    other.cancel()
    assert [row for some in slices for row in some] == rows
    assert max(map(len, slices), default=0) <= ROWS
    # One that is short waits for nobody.
    assert turns == max(0, len(slices) - 1)


@pytest.mark.parametrize("count", [1, 2, 64, 200])
async def test_a_list_has_the_fingerprint_of_the_whole_however_it_is_cut(count: int) -> None:
    """Answers stored by a server that took it whole are found again."""
    fields: list[Fields] = [[f"ä{i}", i, "", ""] for i in range(count)]
    digest = ListDigest()
    async for some in in_slices(fields):
        digest.add(some)
    assert digest.fingerprint() == fingerprint(fields)


def test_rules_stop_once_they_have_heard_enough() -> None:
    rules = Rules()
    for i in range(7):
        rules.spec(FileSpec("", 1), 10, f"files[{i}].")
    assert not rules.are_full()
    rules.spec(FileSpec("", 1), 10, "files[7].")
    assert rules.are_full()


LONGEST = "x" * MAX_SEGMENT_CHARACTERS
# As many bytes as a name may have, in segments of as many characters.
WHOLE = "/".join([*[LONGEST] * 15, "x" * 254, "x"])


@pytest.mark.parametrize(
    "name",
    ["a", "a b-c_d.txt", "~!@#$%^&*()[]{}'\"", LONGEST, "\N{CAT FACE}" * MAX_SEGMENT_CHARACTERS, WHOLE, ".a", "a."],
)
def test_plain_names_are_taken(name: str) -> None:
    rules = Rules()
    rules.filename("filename", name)
    rules.check()


@pytest.mark.parametrize(
    ("name", "limit"),
    [
        (f"a/{LONGEST}x", MAX_SEGMENT_CHARACTERS),
        (f"{LONGEST}é", MAX_SEGMENT_CHARACTERS),
        (f"{WHOLE}y", MAX_FILENAME_BYTES),
    ],
)
def test_a_name_that_is_too_long_says_which_bound_it_goes_past(name: str, limit: int) -> None:
    assert len(WHOLE.encode()) == MAX_FILENAME_BYTES
    rules = Rules()
    rules.filename("filename", name)
    with pytest.raises(InvalidField) as refused:
        rules.check()
    [violation] = refused.value.violations
    assert (violation.field, violation.limit) == ("filename", limit)


@pytest.mark.parametrize("name", ["", ".", "..", "a/", "/a", "a//b", "a\\b", "a\x7f", "a\x9f", "a\n", "e\u0301"])
def test_other_names_are_refused(name: str) -> None:
    rules = Rules()
    rules.filename("filename", name)
    with pytest.raises(InvalidField):
        rules.check()
