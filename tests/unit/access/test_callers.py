"""Who is refused, and what an operator's log says of it: the reason in a sentence, and nothing of the credential."""

from __future__ import annotations

import pytest
import structlog

from upload_server.access.callers import Callers
from upload_server.access.certificates import Proxies
from upload_server.access.identity import Presented
from upload_server.domain.errors import NotIdentified
from upload_server.domain.observer import Observer
from upload_server.domain.states import Source

SECRET = "s" * 4097
FORWARDED = (f"Hash={'ab' * 32};URI=spiffe://example/root",)


@pytest.mark.parametrize(
    ("presented", "reason", "why"),
    [
        (Presented(), "CREDENTIAL_MISSING", None),
        (Presented(["Bearer a", "Bearer a"]), "CREDENTIAL_INVALID", "there is more than one Authorization header"),
        (Presented(["Basic a"]), "CREDENTIAL_INVALID", "it is no bearer"),
        (Presented([""]), "CREDENTIAL_INVALID", "it is no bearer"),
        (Presented([f"Bearer {SECRET}"]), "CREDENTIAL_INVALID", "it is longer than 4096 bytes"),
        (Presented(["Bearer abc"]), "CREDENTIAL_INVALID", "it is no token of a kind that is known here"),
        (
            Presented(forwarded=FORWARDED),
            "CREDENTIAL_MISSING",
            "X-Forwarded-Client-Cert counts from --trusted-proxies alone, and the peer is none",
        ),
    ],
)
@pytest.mark.parametrize("proxies", [None, Proxies(["cert:dns:envoy.example"])])
async def test_the_log_says_why_nobody_known_calls(
    proxies: Proxies | None, presented: Presented, reason: str, why: str | None
) -> None:
    callers = Callers([], Observer(), proxies=proxies)
    with structlog.testing.capture_logs() as log, pytest.raises(NotIdentified) as caught:
        await callers.caller(presented, "GetFile", Source.HTTP)
    (line,) = log
    assert (caught.value.reason, line["reason"], line.get("why")) == (reason, reason, why)
    # The caller hears no more than the reason.
    assert why is None or why not in str(caught.value)
    assert SECRET not in str(line)
