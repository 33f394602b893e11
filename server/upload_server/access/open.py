"""Decides by the settings which credentials count, and how much each principal may have.

Must not know doors, nor how files are counted.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from pathlib import Path

from upload_server.access.callers import Callers
from upload_server.access.certificates import Certificates, Proxies
from upload_server.access.identity import Authenticator
from upload_server.access.jwt import Jwt, keys_of, rules_of
from upload_server.access.policy import named_roles
from upload_server.access.quotas import Quota, Quotas, Use
from upload_server.access.tickets import Tickets, TicketStore
from upload_server.access.tokens_file import QuotasFile, TokensFile
from upload_server.config import Config
from upload_server.domain.observer import Observer
from upload_server.options import named_quotas


class Access:
    """What a server needs whose callers have to say who they are."""

    def __init__(
        self,
        config: Config,
        store: TicketStore,
        count: Callable[[str], Awaitable[Use]],
        observer: Observer,
        proxies: Proxies | None = None,
    ) -> None:
        """``count`` tells what a principal has in the store. Raises ``CannotStart``."""
        self._tokens = _open_tokens(config) if config.tokens_file else None
        self._jwt = _open_jwt(config) if config.jwt_issuer else None
        known: list[Authenticator] = [one for one in (self._tokens, self._jwt) if one is not None]
        if config.cert_principal:
            # Last: a call with a bearer is the bearer's.
            known.append(Certificates(config.cert_principal, named_roles("--cert-roles", config.cert_roles)))
        self.tickets = Tickets(store, known)
        self.callers = Callers([self.tickets, *known], observer, proxies=proxies)
        own: Callable[[str], Quota | None] = lambda _: None  # noqa: E731 - no token, no quota of one's own
        self.quotas = Quotas(_quota_of(config), count, own=own if self._tokens is None else self._tokens.quota_of)

    def read_anew(self) -> None:
        """Have the files of tokens and quotas read at once, changed or not."""
        if self._tokens is not None:
            self._tokens.forget()

    def loops(self, end: Callable[[], None]) -> Sequence[Coroutine[object, object, None]]:
        """Return what runs beside the service; ``end`` ends the streams of callers who may not go on."""
        sources = [] if self._tokens is None else [self._tokens.refresh]
        return [self.callers.run(sources, end), *([] if self._jwt is None else [self._jwt.run()])]


def _quota_of(config: Config) -> Quota:
    """Return what each principal may have."""
    return Quota(
        open_files=config.quota_open_files,
        size_bytes=config.quota_bytes,
        uploads=config.quota_uploads,
        watches=config.quota_watches,
        websockets=config.quota_websockets,
        calls=config.quota_calls,
    )


def _open_tokens(config: Config) -> TokensFile:
    def quotas(text: str) -> Mapping[str, Quota]:
        return {name: _quota_of(own) for name, own in named_quotas(text, config).items()}

    path = Path(config.tokens_file)
    return TokensFile(path, quotas_file=QuotasFile(Path(config.quotas_file), quotas) if config.quotas_file else None)


def _open_jwt(config: Config) -> Jwt:
    of_all = (
        config.jwt_audience,
        config.jwt_algorithms,
        config.jwt_typ,
        config.jwt_leeway,
        config.jwt_role_claim,
        config.jwt_roles,
    )
    return Jwt(
        [(rules_of(alias, issuer, *of_all), keys_of(issuer, config.jwt_jwks)) for alias, issuer in config.jwt_issuers]
    )
