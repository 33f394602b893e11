"""Which Origin and Host headers are let in: tables over a real port."""

from __future__ import annotations

import json

import httpx
import pytest
import websockets
from google.protobuf.json_format import ParseDict
from google.rpc.status_pb2 import Status

from unit.doors.conftest import Serve
from unit.doors.raw import RawPeer
from upload_server.domain.observer import Observer
from upload_server.doors.http.asgi import Receive, Scope, Send, respond
from upload_server.doors.http.guard import Guard
from upload_server.process.hosts import Origin


class Target:
    """What must not run for a refused request."""

    def __init__(self) -> None:
        self.ran = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.ran += 1
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.close", "code": 1000})
        else:
            await respond(send, 200, b"{}")


@pytest.fixture
def target() -> Target:
    return Target()


class Refusals(Observer):
    """The reasons that the guard gave."""

    def __init__(self) -> None:
        self.reasons: list[str] = []

    def request_refused(self, reason: str) -> None:
        self.reasons.append(reason)


def reason_of(answer: httpx.Response) -> str:
    ParseDict(answer.json(), Status())  # it is a Status indeed
    return str(answer.json()["details"][0]["reason"])


FOREIGN = [
    "http://evil.example",
    "https://evil.example",
    "null",
    "",
    "http://127.0.0.1",  # another port
    "https://127.0.0.1:{port}",  # another scheme
    "http://127.0.0.1:{port}.evil.example",
    "http://127.0.0.1:{port}/",
    "http://user@127.0.0.1:{port}",
    "http://localhost:{port}",  # another name of the same machine is another origin
    "http://127.0.0.1:{port}, http://127.0.0.1:{port}",
    "file://",
    "chrome-extension://abcdef",
]


@pytest.mark.parametrize("origin", FOREIGN)
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "INVENTED"])
async def test_a_change_asked_for_by_a_foreign_page_is_403_before_anything_runs(
    serve: Serve, target: Target, origin: str, method: str
) -> None:
    refusals = Refusals()
    server = await serve(Guard(target, observer=refusals))
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}") as client:
        if method == "INVENTED":
            # The parser knows no such verb: it does not even come to the guard.
            answer = await client.request(method, "/", headers={"Origin": origin.format(port=server.port)})
            assert answer.status_code == 400
        else:
            answer = await client.request(method, "/", headers={"Origin": origin.format(port=server.port)})
            assert (answer.status_code, reason_of(answer)) == (403, "ORIGIN_NOT_ALLOWED")
            assert refusals.reasons == ["ORIGIN_NOT_ALLOWED"]
            assert "access-control-allow-origin" not in answer.headers
    assert target.ran == 0


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
async def test_a_foreign_page_may_ask_what_changes_nothing_but_not_read_it(
    serve: Serve, target: Target, method: str
) -> None:
    server = await serve(Guard(target))
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}") as client:
        answer = await client.request(
            method, "/", headers={"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
        )
    assert answer.status_code == 200
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("host", ["127.0.0.1:{port}", "localhost:{port}", "LOCALHOST:{port}", "[::1]:{port}"])
async def test_a_page_of_our_own_may_change(serve: Serve, target: Target, host: str) -> None:
    server = await serve(Guard(target))
    host = host.format(port=server.port)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}") as client:
        answer = await client.post("/", headers={"Host": host, "Origin": f"http://{host.lower()}"})
    assert (answer.status_code, target.ran) == (200, 1)


async def test_no_origin_is_no_browser(serve: Serve, target: Target) -> None:
    server = await serve(Guard(target))
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}") as client:
        assert (await client.post("/")).status_code == 200


async def test_two_origins_are_refused(serve: Serve, target: Target) -> None:
    server = await serve(Guard(target))
    peer = await RawPeer.connect(server.port)
    own = f"http://127.0.0.1:{server.port}"
    status, _, body = await peer.request(
        f"POST / HTTP/1.1\nHost: 127.0.0.1:{server.port}\nOrigin: {own}\nOrigin: http://evil.example\n\n"
    )
    assert status == 403
    assert b"ORIGIN_NOT_ALLOWED" in body
    peer.finish()


GOOD_HOSTS = [
    "localhost",
    "localhost:80",
    "LocalHost:1",
    "127.0.0.1",
    "127.1.2.3:8080",
    "[::1]",
    "[::1]:8080",
    "127.0.0.1:",
]
BAD_HOSTS = [
    "evil.example",
    "evil.example:80",
    "localhost.evil.example",
    "127.0.0.1.evil.example",
    "128.0.0.1",
    "0.0.0.0",  # noqa: S104 - sent, not bound
    "[::2]",
    "::1",
    "localhost:99999",
    "localhost:x",
    "localhost@evil.example",
    "user@localhost",
    "localhost/",
    "127.1",
    "2130706433",
    "",
]


@pytest.mark.parametrize("host", GOOD_HOSTS)
async def test_loopback_names_are_let_in(serve: Serve, target: Target, host: str) -> None:
    server = await serve(Guard(target))
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}") as client:
        assert (await client.get("/", headers={"Host": host})).status_code == 200


@pytest.mark.parametrize("host", BAD_HOSTS)
async def test_a_foreign_host_on_loopback_is_403_also_for_get(serve: Serve, target: Target, host: str) -> None:
    server = await serve(Guard(target))
    peer = await RawPeer.connect(server.port)
    status, _, body = await peer.request(f"GET / HTTP/1.1\nHost: {host}\n\n")
    assert (status, target.ran) == (403, 0)
    assert json.loads(body)["details"][0]["reason"] == "HOST_NOT_ALLOWED"
    peer.finish()


@pytest.mark.parametrize("head", ["GET / HTTP/1.0\n", "GET / HTTP/1.1\nHost: localhost\nHost: evil.example\n"])
async def test_no_host_or_two_hosts_are_403(serve: Serve, target: Target, head: str) -> None:
    server = await serve(Guard(target))
    peer = await RawPeer.connect(server.port)
    status, _, _ = await peer.request(f"{head}\n")
    assert (status, target.ran) == (403, 0)
    peer.finish()


async def test_a_rebound_page_is_not_same_origin_by_its_own_word(serve: Serve, target: Target) -> None:
    """DNS of evil.example points to 127.0.0.1: Origin and Host agree, and are both foreign."""
    server = await serve(Guard(target))
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}") as client:
        host = f"evil.example:{server.port}"
        answer = await client.post("/", headers={"Host": host, "Origin": f"http://{host}"})
    assert (answer.status_code, target.ran) == (403, 0)


async def test_beyond_loopback_any_host_is_let_in_and_same_origin_counts(serve: Serve, target: Target) -> None:
    server = await serve(Guard(target, on_loopback=False))
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}") as client:
        named = {"Host": "uploads.example:8080"}
        assert (await client.get("/", headers=named)).status_code == 200
        own = await client.post("/", headers={**named, "Origin": "http://uploads.example:8080"})
        foreign = await client.post("/", headers={**named, "Origin": "http://uploads.example"})
    assert (own.status_code, foreign.status_code) == (200, 403)


async def test_allowed_hosts_are_let_in_on_loopback(serve: Serve, target: Target) -> None:
    server = await serve(Guard(target, allowed_hosts=["Uploads.example"]))
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}") as client:
        assert (await client.get("/", headers={"Host": "uploads.example:8080"})).status_code == 200
        assert (await client.get("/", headers={"Host": "other.example"})).status_code == 403


async def test_allowed_hosts_hold_beyond_loopback_too(serve: Serve, target: Target) -> None:
    """A page whose name was made to point here would be same-origin by its own word."""
    server = await serve(Guard(target, allowed_hosts=["uploads.example"], on_loopback=False))
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}") as client:
        evil = {"Host": "evil.example", "Origin": "http://evil.example"}
        assert (await client.post("/", headers=evil)).status_code == 403
        assert (await client.get("/", headers={"Host": "evil.example"})).status_code == 403
        assert target.ran == 0
        # Probes ask by address, and a balancer on the machine by a loopback name.
        for host in ("uploads.example:8080", "10.1.2.3:8080", "[fd00::1]:8080", "localhost"):
            assert (await client.get("/", headers={"Host": host})).status_code == 200, host


ALLOWED = "https://app.example"


async def test_an_allowed_origin_may_change_and_read(serve: Serve, target: Target) -> None:
    server = await serve(
        Guard(target, allowed_origins=[Origin.parse(ALLOWED), Origin.parse("http://other.example:8000")])
    )
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}") as client:
        answer = await client.post("/", headers={"Origin": ALLOWED})
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == ALLOWED
        assert answer.headers["vary"] == "Origin"
        foreign = await client.post("/", headers={"Origin": "https://app.example.evil.example"})
        assert foreign.status_code == 403
        plain = await client.get("/")
        assert plain.headers["vary"] == "Origin"  # a cache must not hand this answer to the page


@pytest.mark.parametrize("allowed", [ALLOWED, "capacitor://localhost", "chrome-extension://abcdefgh", "app://-"])
async def test_a_preflight_of_an_allowed_origin_is_answered_here(serve: Serve, target: Target, allowed: str) -> None:
    origin = Origin.parse(allowed)
    server = await serve(Guard(target, allowed_origins=[origin], allowed_headers=["X-Tenant"]))
    asked = {
        "Origin": allowed,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "baggage,last-event-id,sentry-trace,traceparent,tracestate,x-tenant",
    }
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}") as client:
        answer = await client.options("/api/v1/watch", headers=asked)
        other = await client.options("/api/v1/watch", headers={**asked, "Origin": f"{allowed}.example"})
    assert (answer.status_code, target.ran) == (204, 1)
    assert answer.headers["access-control-allow-origin"] == allowed
    assert "access-control-allow-origin" not in other.headers
    assert "POST" in answer.headers["access-control-allow-methods"]
    taken = answer.headers["access-control-allow-headers"].lower().split(", ")
    assert set(asked["Access-Control-Request-Headers"].split(",")) <= set(taken)
    # A beacon always carries credentials; the origin is a named one, never any.
    assert answer.headers["access-control-allow-credentials"] == "true"


@pytest.mark.parametrize("origin", FOREIGN)
async def test_a_socket_of_a_foreign_page_is_refused_with_403(serve: Serve, target: Target, origin: str) -> None:
    server = await serve(Guard(target))
    peer = await RawPeer.connect(server.port)
    status, _, body = await peer.handshake("/", server.port, f"Origin: {origin.format(port=server.port)}")
    assert (status, target.ran) == (403, 0)
    assert json.loads(body)["details"][0]["reason"] == "ORIGIN_NOT_ALLOWED"
    peer.finish()


async def test_sockets_of_own_and_allowed_pages_and_of_no_page_are_let_in(serve: Serve, target: Target) -> None:
    server = await serve(Guard(target, allowed_origins=[Origin.parse(ALLOWED)]))
    uri = f"ws://127.0.0.1:{server.port}/"
    for origin in (f"http://127.0.0.1:{server.port}", ALLOWED, None):
        async with websockets.connect(uri, origin=websockets.Origin(origin) if origin else None) as page:
            with pytest.raises(websockets.ConnectionClosedOK):
                await page.recv()
    assert target.ran == 3


async def test_a_socket_to_a_foreign_host_on_loopback_is_refused(serve: Serve, target: Target) -> None:
    server = await serve(Guard(target))
    with pytest.raises(websockets.InvalidStatus) as refusal:
        await websockets.connect(f"ws://evil.example:{server.port}/", host="127.0.0.1", port=server.port)
    assert (refusal.value.response.status_code, target.ran) == (403, 0)
