"""Decides what a ticket is: a credential for one WebSocket, made of another one by a page that can send it no header.

Must not know doors, nor where tickets are kept. Whoever reads what is kept cannot use it: that is a SHA-256.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import time
from collections.abc import Sequence
from typing import Final, Protocol

from upload_server.access.identity import Authenticator, Identity, Presented
from upload_server.domain.caller import Caller
from upload_server.domain.errors import CredentialInvalid

# A page opens its socket as soon as it has the ticket.
SECONDS: Final = 30.0
_SECRET_BYTES: Final = 32
_TICKET: Final = re.compile(r"[A-Za-z0-9_-]{43}")


class TicketStore(Protocol):
    """Where tickets are kept, so that every node takes them."""

    async def keep_ticket(self, sha256: str, identity: str, seconds: float) -> None:
        """Keep a ticket for so many seconds."""

    async def take_ticket(self, sha256: str) -> str | None:
        """Return the identity that was kept, once; None: there is no such ticket, or none any more."""


class Tickets:
    """The authenticator of tickets. They name whoever they were made for by that one's own credential."""

    def __init__(self, store: TicketStore, others: Sequence[Authenticator]) -> None:
        """``others`` know the credentials that tickets are made of."""
        self._store = store
        self._others = others

    async def make(self, caller: Caller, file_id: str, origin: str) -> tuple[str, float]:
        """Return a ticket for one socket of this file and origin, and the POSIX time at which it ends.

        It lasts no longer than the caller's credential.
        """
        now = time.time()
        seconds = SECONDS if caller.expires_at is None else min(SECONDS, caller.expires_at - now)
        ticket = secrets.token_urlsafe(_SECRET_BYTES)
        await self._store.keep_ticket(_digest(ticket, file_id, origin), _written(caller), seconds)
        return ticket, now + seconds

    async def identify(self, presented: Presented) -> Identity | None:
        """Return whom a ticket was made for; it is none any more from then on."""
        if not presented.tickets:
            return None
        kept = None
        if len(presented.tickets) == 1 and _TICKET.fullmatch(presented.tickets[0]):
            kept = await self._store.take_ticket(_digest(presented.tickets[0], presented.file_id, presented.origin))
        if kept is None:
            raise CredentialInvalid("no ticket for this file and origin, or it was used, or its time is over")
        identity = _read(kept)
        if any(other.revoked(identity) for other in self._others):
            raise CredentialInvalid("what the ticket was made of is revoked", identity.credential)
        return identity

    def revoked(self, identity: Identity) -> bool:  # noqa: ARG002 - as every authenticator
        """Never: what a ticket was made of is asked for of the authenticator that knows it."""
        return False


def _digest(ticket: str, file_id: str, origin: str) -> str:
    """Return by what a ticket is found. For another file or origin none is, and the right page still has its own."""
    return hashlib.sha256(json.dumps([ticket, file_id, origin]).encode()).hexdigest()


def _written(caller: Caller) -> str:
    return json.dumps([caller.principal, sorted(caller.roles), caller.credential, caller.expires_at])


def _read(kept: str) -> Identity:
    principal, roles, credential, expires_at = json.loads(kept)
    return Identity(principal, frozenset(roles), credential, expires_at)
