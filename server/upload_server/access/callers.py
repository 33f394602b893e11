"""Decides who calls, of what a door saw, and whether whoever called before still may go on.

Must not know doors. The first authenticator that knows a credential decides; what none knows is refused.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

import structlog

from upload_server.access.certificates import Proxies
from upload_server.access.identity import Authenticator, Identity, Presented, why_unknown
from upload_server.access.policy import caller_of
from upload_server.domain.caller import Caller
from upload_server.domain.errors import (
    CredentialExpired,
    CredentialInvalid,
    CredentialLost,
    CredentialMissing,
    NotIdentified,
    PermissionDenied,
    Stopped,
    UploadError,
)
from upload_server.domain.observer import Observer
from upload_server.domain.states import Source

log = structlog.get_logger(__name__)

# Refusals for one reason that are logged within a second; the next line says how many were not.
_LINES_A_SECOND = 10
# So often sources are looked at for changes, and open streams for callers who may not go on.
_LOOK_SECONDS = 0.5


class Callers:
    """Whoever calls, while callers have to say who they are."""

    def __init__(
        self,
        authenticators: Sequence[Authenticator],
        observer: Observer,
        proxies: Proxies | None = None,
    ) -> None:
        """``proxies`` may say what they were shown."""
        self._proxies = proxies
        self._authenticators = authenticators
        self._observer = observer
        self._lines: dict[str, _Lines] = {}

    async def caller(self, presented: Presented, method: str, door: Source) -> Caller:
        """Return who calls ``method``; raises ``NotIdentified`` or ``PermissionDenied``, which are logged here."""
        identity: Identity | None = None
        shown = presented
        try:
            if self._proxies is not None:
                presented = self._proxies.seen(presented)
            identity = await self._identify(presented)
            return caller_of(identity, method, door, presented.peer)
        except (NotIdentified, PermissionDenied) as error:
            if isinstance(error, CredentialMissing) and shown.forwarded and not self._trusts(shown):
                error.why = "X-Forwarded-Client-Cert counts from --trusted-proxies alone, and the peer is none"
            self._note(error, method, door, presented.peer, identity)
            raise

    def _trusts(self, presented: Presented) -> bool:
        return self._proxies is not None and self._proxies.trust(presented.certificate)

    async def _identify(self, presented: Presented) -> Identity:
        for authenticator in self._authenticators:
            identity = await authenticator.identify(presented)
            if identity is not None:
                return identity
        if presented.authorization:
            raise CredentialInvalid(why_unknown(presented))
        raise CredentialMissing

    # Who has called before ------------------------------------------------------------------------------------------

    def lost(self, caller: Caller) -> Stopped | None:
        """Return why who sends or takes bytes may not go on. Time alone ends neither: no short token ends a film."""
        if not caller.credential:
            return None
        identity = Identity(caller.principal, caller.roles, caller.credential, caller.expires_at)
        if any(one.revoked(identity) for one in self._authenticators):
            return CredentialLost(caller.credential)
        return None

    def lost_or_expired(self, caller: Caller) -> UploadError | None:
        """Return why whoever watches may not go on; the watch is resumed by its token with a new credential."""
        if caller.expires_at is not None and caller.expires_at <= time.time():
            return CredentialExpired(caller.credential)
        return self.lost(caller)

    async def run(self, refresh: Sequence[Callable[[], Awaitable[None]]], end: Callable[[], None]) -> None:
        """Look for changes of the sources, and ``end`` the streams of those who may not go on, until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            for source in refresh:
                await source()
            end()

    # Refusals ------------------------------------------------------------------------------------------------------

    def _note(self, error: UploadError, method: str, door: Source, peer: str, identity: Identity | None) -> None:
        """Log and count a refusal: never a credential, at most some lines a second."""
        self._observer.auth_refused(door.value, error.reason)
        lines = self._lines.setdefault(error.reason, _Lines())
        if not lines.has_room(time.time()):
            return
        who = {"principal": identity.principal, "credential": identity.credential} if identity is not None else {}
        if isinstance(error, CredentialInvalid | CredentialExpired) and error.credential:
            who["credential"] = error.credential
        if isinstance(error, NotIdentified) and error.why:
            who["why"] = error.why
        if suppressed := lines.take_suppressed():
            who["suppressed"] = str(suppressed)
        log.info("auth.refused", reason=error.reason, door=door.value, method=method, peer=peer, **who)


class _Lines:
    """How many refusals for one reason were logged in this second, and how many were not."""

    def __init__(self) -> None:
        self._second = 0
        self._logged = 0
        self._suppressed = 0

    def has_room(self, now: float) -> bool:
        if int(now) != self._second:
            self._second, self._logged = int(now), 0
        if self._logged >= _LINES_A_SECOND:
            self._suppressed += 1
            return False
        self._logged += 1
        return True

    def take_suppressed(self) -> int:
        suppressed, self._suppressed = self._suppressed, 0
        return suppressed
