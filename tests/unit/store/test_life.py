"""How long a node may believe that no other one takes it for dead."""

from __future__ import annotations

from upload_server.store.commands.nodes import Beaten, Membership


def test_a_gap_between_two_leases_ends_what_was_begun_before_it() -> None:
    now = 100.0
    member = Membership(10.0, lambda: now)
    assert not member.lived_since(100.0)
    member.beaten(100.0, Beaten(leads=False))
    begun = now
    assert member.lived_since(begun)

    now = 109.0
    member.beaten(108.0, Beaten(leads=False))
    now = 117.0
    assert member.lived_since(begun)

    # Stopped for a while: others may have found nobody, and woken up it says that it lives.
    now = 119.0
    assert not member.lived_since(begun)
    member.beaten(119.0, Beaten(leads=False))
    assert member.lives
    assert not member.lived_since(begun)
    assert member.lived_since(119.0)
