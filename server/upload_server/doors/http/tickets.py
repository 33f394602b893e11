"""Decides how a page of another origin gets a ticket, which opens one WebSocket where no header can go along.

Must not know what a ticket is, nor how it is taken.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from functools import partial
from typing import Final

import structlog

from upload_server.access.tickets import Tickets
from upload_server.domain.errors import timestamp_text
from upload_server.domain.fields import Rules
from upload_server.doors.admission import Gate
from upload_server.doors.calls import Call, Calls
from upload_server.doors.http.asgi import Receive, Scope, Send, refuse, refuse_method, respond
from upload_server.doors.presented import origin_of
from upload_server.service import Uploads

_log = structlog.get_logger(__name__)

PATH: Final = "/api/v1/tickets"
_MOST_BYTES: Final = 4096


class TicketDoor:
    """Serves ``/api/v1/tickets``: POST with a credential gives a ticket for one socket of a file."""

    def __init__(self, uploads: Uploads, calls: Calls, tickets: Tickets) -> None:
        self._uploads = uploads
        self._calls = calls
        self._tickets = tickets

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["method"] != "POST":
            await refuse_method(send, scope["method"], "POST")
            return
        async with Call(self._calls, "CreateTicket", partial(refuse, send), scope) as call:
            caller = await call.admit(Gate.CHANGE)
            with self._calls.limit():
                file_id = _file_id(await _body(receive))
                # A file that is not the caller's is unknown to it.
                await self._uploads.get_file(file_id, caller)
                ticket, ends_at = await self._tickets.make(caller, file_id, origin_of(scope))
            _log.info("auth.ticket_made", principal=caller.principal, credential=caller.credential, peer=caller.peer)
            expires_at = timestamp_text(datetime.fromtimestamp(ends_at, UTC))
            await respond(send, 200, json.dumps({"ticket": ticket, "expires_at": expires_at}).encode())


async def _body(receive: Receive) -> bytes:
    """Read the body as far as it may be long; what a page that has left did not send is not there."""
    body = bytearray()
    while len(body) <= _MOST_BYTES:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    return bytes(body)


def _file_id(body: bytes) -> str:
    """Return the id that a body names; raises ``InvalidField``."""
    rules = Rules()
    if len(body) > _MOST_BYTES:
        rules.refuse("body", f"must be at most {_MOST_BYTES} bytes", _MOST_BYTES)
    rules.check()
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError):
        asked = None
    file_id = asked.get("file_id") if isinstance(asked, dict) and asked.keys() == {"file_id"} else None
    if not isinstance(file_id, str):
        rules.refuse("body", 'must be {"file_id": "…"}')
    rules.check()
    return str(file_id)
