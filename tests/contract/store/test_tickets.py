"""Tickets in every store: each is taken once, at whichever node, within its time."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
import pytest_asyncio

from contract.store.test_nodes import Opening, nodes_on
from support.stores import shell
from upload_server.access.identity import Identity, Presented
from upload_server.access.tickets import SECONDS, Tickets
from upload_server.domain.caller import Caller
from upload_server.domain.errors import CredentialInvalid, StorageFull
from upload_server.domain.states import Source
from upload_server.store.open import StoreAt
from upload_server.store.options import StoreOptions
from upload_server.store.protocol import Store
from upload_server.store.values import Moment

CALLER = Caller(Source.HTTP, "ada", credential="token:abcdefgh", roles=frozenset({"user", "monitor"}))
ADA = Identity("ada", CALLER.roles, "token:abcdefgh")
PAGE = "https://app.example"


@pytest_asyncio.fixture
async def open_node(backend: StoreAt) -> AsyncIterator[Opening]:
    async with nodes_on(backend) as opening:
        yield opening


def shown(ticket: str, file_id: str = "a", origin: str = PAGE) -> Presented:
    return Presented(tickets=[ticket], file_id=file_id, origin=origin)


async def taken(tickets: Tickets, presented: Presented) -> Identity | None:
    try:
        return await tickets.identify(presented)
    except CredentialInvalid:
        return None


async def test_one_node_makes_a_ticket_and_another_takes_it_once(open_node: Opening) -> None:
    one, two = Tickets(await open_node(), []), Tickets(await open_node(), [])
    ticket, ends_at = await one.make(CALLER, "a", PAGE)
    assert 0 < ends_at - time.time() <= SECONDS

    for strange in (shown(ticket, "b"), shown(ticket, "a\0"), shown(ticket, origin=""), shown(ticket[:-1])):
        assert await taken(two, strange) is None
    both = await asyncio.gather(*(taken(tickets, shown(ticket)) for tickets in (one, two, one, two)))

    assert (both.count(ADA), both.count(None)) == (1, 3)
    assert await taken(one, shown(ticket)) is None


async def test_what_a_ticket_is_made_of_ends_it(store: Store) -> None:
    class Known:
        async def identify(self, presented: Presented) -> None:
            raise AssertionError(presented)

        def revoked(self, identity: Identity) -> bool:
            return identity == ADA

    ticket, _ = await Tickets(store, []).make(CALLER, "a", PAGE)
    with pytest.raises(CredentialInvalid) as caught:
        await Tickets(store, [Known()]).identify(shown(ticket))
    assert caught.value.credential == CALLER.credential


async def test_a_ticket_is_late_and_then_forgotten(backend: StoreAt, url: str) -> None:
    store = await backend.open()
    tickets = Tickets(store, [])
    # It has no more time than the credential that it is made of.
    late = Caller(Source.HTTP, "ada", expires_at=time.time() - 1)
    ticket, ends_at = await tickets.make(late, "a", PAGE)
    assert ends_at == pytest.approx(late.expires_at)
    lasting, _ = await tickets.make(CALLER, "a", PAGE)
    assert await taken(tickets, shown(ticket)) is None

    await store.forget_answers(Moment(datetime(2020, 1, 1, tzinfo=UTC), 0.0), 10)
    await store.close()
    with shell(url) as tables:
        assert [tuple(row) for row in tables.execute("SELECT count(*) FROM ticket").fetchall()] == [(1,)]
    # None is copied to another store.
    with contextlib.closing(backend.inspect()) as inspection:
        assert "ticket" not in dict(inspection.tables())
    store = await backend.open()
    assert await taken(Tickets(store, []), shown(lasting)) == ADA
    await store.close()


async def test_tickets_leave_the_last_of_the_room_to_cancels(backend: StoreAt) -> None:
    store = await backend.open(StoreOptions(max_database_bytes=1))
    with pytest.raises(StorageFull):
        await Tickets(store, []).make(CALLER, "a", PAGE)
    await store.close()
