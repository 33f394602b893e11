"""What a node remembers of the senders of tus uploads, and what it answers them."""

from __future__ import annotations

import pytest

from upload_server.domain.errors import ShuttingDown, UploadError, UploadIdle, WriterReplaced
from upload_server.doors.tus import answers
from upload_server.doors.tus.senders import COME_BACK_SECONDS, FIGHT_SECONDS, Senders


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_who_was_there_for_all_of_the_answer_has_heard_it_and_stays_so() -> None:
    senders = Senders(Clock())
    assert senders.has_heard("a") is None
    senders.note_told("a", in_full=True, asked=False)
    senders.note_told("a", in_full=False, asked=False)
    assert (senders.has_heard("a"), senders.has_heard("b")) == (True, None)


def test_who_hung_up_may_come_back_by_itself_but_not_for_ever() -> None:
    clock = Clock()
    senders = Senders(clock)
    senders.note_told("asked", in_full=False, asked=True)
    senders.note_told("cut", in_full=False, asked=False)
    clock.now += COME_BACK_SECONDS - 1
    senders.note_told("asked", in_full=False, asked=True)
    clock.now += COME_BACK_SECONDS - 1
    assert (senders.has_heard("asked"), senders.has_heard("cut")) == (False, False)
    clock.now += 1
    assert (senders.has_heard("asked"), senders.has_heard("cut")) == (True, False)


def test_a_sender_fights_that_is_replaced_again_soon() -> None:
    clock = Clock()
    senders = Senders(clock)
    assert not senders.note_replaced("a")
    assert not senders.note_replaced("b")
    clock.now += FIGHT_SECONDS - 1
    assert senders.note_replaced("a")
    clock.now += FIGHT_SECONDS
    assert not senders.note_replaced("a")


def test_the_oldest_files_are_forgotten() -> None:
    senders = Senders(Clock())
    for number in range(20_000):
        senders.note_told(str(number), in_full=True, asked=True)
    assert (senders.has_heard("0"), senders.has_heard("19999")) == (None, True)


@pytest.mark.parametrize("error", [WriterReplaced("f"), UploadIdle("f", 1.0), ShuttingDown()])
def test_a_head_never_has_its_client_begin_anew(error: UploadError) -> None:
    """At anything but 423 and success tus-js-client announces the file anew."""
    assert answers.refused(error, of_head=True).status == 423
