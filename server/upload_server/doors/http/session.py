"""Decides how a page signs in: its token goes into a cookie that no script reads and that only our own pages send.

Must not know what the token says. The server keeps nothing of it: a page is signed in at every node, for as long as its
token is one, and for eight hours at most.
"""

from __future__ import annotations

import time
from typing import Final

import structlog
from google.rpc.code_pb2 import Code

from upload_server.access.identity import Presented, bearer
from upload_server.domain.errors import CredentialMissing, UploadError
from upload_server.doors.calls import Calls
from upload_server.doors.http.asgi import (
    Receive,
    Scope,
    Send,
    headers_of,
    refuse,
    refuse_method,
    respond,
    respond_empty,
    status_body,
    status_of,
)
from upload_server.doors.presented import COOKIES, is_for_this_machine, is_own_page

_log = structlog.get_logger(__name__)

PATH: Final = "/auth/session"
_MOST_SECONDS: Final = 8 * 3600


class SessionDoor:
    """Serves ``/auth/session``: POST with a token signs a page in, DELETE signs it out."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        """Serve one request."""
        method = scope["method"]
        if method not in ("POST", "DELETE"):
            await refuse_method(send, method, "POST", "DELETE")
        elif not is_own_page(scope["headers"]):
            status = status_of(
                Code.PERMISSION_DENIED, "ORIGIN_NOT_ALLOWED", "Only this server's own pages sign in here"
            )
            await respond(send, 403, status_body(status))
        elif method == "DELETE":
            await respond_empty(send, [_cookie(name, "", 0) for name in COOKIES])
        else:
            await self._sign_in(scope, send)

    async def _sign_in(self, scope: Scope, send: Send) -> None:
        token = bearer(Presented([value.decode("latin-1") for value in headers_of(scope, b"authorization")]))
        try:
            if token is None:
                raise CredentialMissing
            caller = await self._calls.identify("GetCaller", scope)
        except UploadError as error:
            await refuse(send, error)
            return
        left = _MOST_SECONDS if caller.expires_at is None else int(caller.expires_at - time.time())
        _log.info("auth.signed_in", principal=caller.principal, credential=caller.credential, peer=caller.peer)
        await respond_empty(send, [_cookie(_name(scope), token, max(0, min(left, _MOST_SECONDS)))])


def _name(scope: Scope) -> str:
    """The name of the cookie: over plain text, on this machine only, it cannot have the prefix of a safe one."""
    secure, plain = COOKIES
    return plain if scope["scheme"] == "http" and is_for_this_machine(scope["headers"]) else secure


def _cookie(name: str, token: str, seconds: int) -> tuple[bytes, bytes]:
    secure = "; Secure" if name == COOKIES[0] else ""
    return b"set-cookie", f"{name}={token}; Path=/; HttpOnly; SameSite=Strict; Max-Age={seconds}{secure}".encode()
