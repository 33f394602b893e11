"""With `--auth required` each call says who calls, in the head of its request alone, through every door."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import grpc
import httpx
import pytest
import websockets
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from support.doors import refusal_of_json, refusal_of_rpc
from support.grpc_upload import UploadCall
from support.process import ServerProcess
from support.tokens import Tokens
from upload.v1 import upload_pb2 as pb

if TYPE_CHECKING:
    from upload.v1.upload_pb2_grpc import UploadServiceAsyncStub as Stub

INITIATE = "/api/v1/upload/initiate"
FILE = {"filename": "a.bin", "size_bytes": 10}
# A page of another origin, which may call.
PAGE = "https://app.example"
TICKETS = "/api/v1/tickets"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, tokens: Tokens) -> Iterator[ServerProcess]:
    options = (*tokens.options, "--allowed-origins", PAGE)
    with ServerProcess(tmp_path_factory.mktemp("server"), options) as process:
        yield process


async def announced(http: httpx.AsyncClient, tokens: Tokens, who: str = "owner", **spec: object) -> str:
    response = await http.post(INITIATE, json={**FILE, **spec}, headers=tokens.header(who))
    assert response.status_code == 200, response.text
    file_id: str = response.json()["file"]["file_id"]
    return file_id


def wrong_heads(tokens: Tokens) -> dict[str, list[tuple[str, str]]]:
    good = tokens.secrets["owner"]
    return {
        "nothing": [],
        "twice": [("authorization", f"Bearer {good}")] * 2,
        "another scheme": [("authorization", f"Basic {good}")],
        "no scheme": [("authorization", good)],
        "empty": [("authorization", "")],
        "no token": [("authorization", "Bearer")],
        "a list": [("authorization", f"Bearer {good}, Bearer {good}")],
        "another secret": [("authorization", f"Bearer {good[:-3]}abc")],
        "an unknown id": [("authorization", "Bearer upl_aaaaaaaa_" + "b" * 43)],
        "cut": [("authorization", f"Bearer {good[:-1]}")],
        "too long": [("authorization", "Bearer " + "a" * 4097)],
        "metadata of the transcoder": [("grpc-metadata-authorization", f"Bearer {good}")],
        "a cookie": [("cookie", f"authorization=Bearer {good}")],
        "what the transcoder adds": [("grpcgateway-authorization", f"Bearer {good}")],
        "a forwarded head": [("x-forwarded-authorization", f"Bearer {good}")],
    }


WRONG = list(wrong_heads(Tokens(None, {"owner": ""})))  # type: ignore[arg-type]  # the names alone


def reason_expected(name: str) -> str:
    missing = {"nothing", "metadata of the transcoder", "a cookie", "what the transcoder adds", "a forwarded head"}
    return "CREDENTIAL_MISSING" if name in missing else "CREDENTIAL_INVALID"


@pytest.mark.parametrize("name", WRONG)
async def test_a_wrong_head_is_refused_through_every_door(
    http: httpx.AsyncClient, stub: Stub, server: ServerProcess, tokens: Tokens, name: str
) -> None:
    head, reason = wrong_heads(tokens)[name], reason_expected(name)
    challenge = 'Bearer realm="upload"' + ("" if reason == "CREDENTIAL_MISSING" else ', error="invalid_token"')
    for method, path in (
        ("POST", INITIATE),
        ("GET", "/api/v1/files"),
        ("GET", "/api/v1/watch?all=true"),
        ("GET", "/metrics"),
        ("HEAD", "/api/v1/tus/x"),
        ("POST", "/api/v1/tus"),
    ):
        more = [("tus-resumable", "1.0.0"), ("upload-length", "3")] if "tus" in path else []
        response = await http.request(method, path, headers=[*head, *more])
        assert (response.status_code, response.headers["www-authenticate"]) == (401, challenge), path
        if method != "HEAD":
            assert refusal_of_json(response.json()).reason == reason
    # grpcio itself refuses to send some of them.
    if all(value for _, value in head):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.ListFiles(pb.ListFilesRequest(), metadata=tuple(head))
        assert (caught.value.code(), refusal_of_rpc(caught.value).reason) == (grpc.StatusCode.UNAUTHENTICATED, reason)
    if name != "empty":
        url = f"ws://127.0.0.1:{server.http_port}/api/v1/upload/ws/x"
        async with websockets.connect(url, additional_headers=head) as socket:
            said = json.loads(await socket.recv())
            assert refusal_of_json(said["error"]).reason == reason
            with pytest.raises(websockets.ConnectionClosed):
                await socket.recv()
            assert socket.close_code == 4401


async def test_a_token_in_a_url_or_a_body_is_none(http: httpx.AsyncClient, tokens: Tokens) -> None:
    token = tokens.secrets["owner"]
    for parameter in ("authorization", "access_token", "token"):
        response = await http.get("/api/v1/files", params={parameter: f"Bearer {token}"})
        # A parameter that no field has is refused as one, and nothing is told of.
        assert response.status_code in {400, 401}
        assert token not in response.text
    response = await http.post(INITIATE, json=FILE, params={})
    assert response.status_code == 401


async def test_a_token_in_a_trailer_is_none(server: ServerProcess, tokens: Tokens) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.http_port)
    body = json.dumps(FILE)
    writer.write(
        f"POST {INITIATE} HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\ntrailer: authorization\r\n\r\n"
        f"{len(body):x}\r\n{body}\r\n0\r\nauthorization: Bearer {tokens.secrets['owner']}\r\n\r\n".encode()
    )
    assert b" 401 " in await reader.readline()
    writer.close()


@pytest.mark.parametrize(
    "head",
    [
        f"POST {INITIATE} HTTP/1.1",
        "POST /api/v1/batch/initiate HTTP/1.1",
        "POST /api/v1/upload/put HTTP/1.1",
        "POST /api/v1/tickets HTTP/1.1",
        "POST /api/v1/tus HTTP/1.1\r\nupload-length: 8000000\r\ncontent-type: application/offset+octet-stream",
        "PATCH /api/v1/tus/x HTTP/1.1\r\nupload-offset: 0\r\ncontent-type: application/offset+octet-stream",
    ],
)
@pytest.mark.parametrize(("who", "status"), [("nobody", 401), ("auditor", 403)])
async def test_who_may_not_is_refused_before_any_byte_of_the_body(
    server: ServerProcess, tokens: Tokens, head: str, who: str, status: int
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.http_port)
    tus = "tus-resumable: 1.0.0\r\n" if "tus" in head else ""
    credential = "".join(f"{name}: {value}\r\n" for name, value in tokens.header(who).items())
    writer.write(f"{head}\r\nhost: localhost\r\n{tus}{credential}content-length: 8000000\r\n\r\n".encode())
    # Nobody waits for a body as long as this: the answer comes at once, and whole.
    async with asyncio.timeout(30):
        answered = await reader.readuntil(b"\r\n\r\n")
        length = int(answered.lower().partition(b"content-length:")[2].split()[0])
        body = json.loads(await reader.readexactly(length))
    assert answered.startswith(b"HTTP/1.1 %d " % status)
    assert body["details"][0]["reason"] == ("CREDENTIAL_MISSING" if who == "nobody" else "PERMISSION_DENIED")
    # Who sends on all the same is not cut off: it may see the answer only after its body.
    writer.write(bytes(1_000_000))
    await writer.drain()
    writer.close()


async def test_what_needs_no_credential_has_none(http: httpx.AsyncClient, channel: grpc.aio.Channel) -> None:
    for path in ("/healthz", "/readyz", "/", "/docs", "/openapi.json", "/console/app.js"):
        assert (await http.get(path)).status_code == 200, path
    assert (await http.options("/api/v1/tus")).status_code == 204
    health = health_pb2_grpc.HealthStub(channel)
    assert (await health.Check(health_pb2.HealthCheckRequest())).status == health_pb2.HealthCheckResponse.SERVING


async def test_reflection_needs_a_credential(channel: grpc.aio.Channel, tokens: Tokens) -> None:
    reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
    asked = [reflection_pb2.ServerReflectionRequest(list_services="")]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        # Sends nothing: what is refused while it writes may see grpcio's own error first.
        await reflection.ServerReflectionInfo().read()
    assert refusal_of_rpc(caught.value).reason == "CREDENTIAL_MISSING"
    answer = await anext(aiter(reflection.ServerReflectionInfo(iter(asked), metadata=tokens.metadata("monitor"))))
    assert "upload.v1.UploadService" in {service.name for service in answer.list_services_response.service}


async def test_the_trail_and_the_file_name_the_principal(http: httpx.AsyncClient, stub: Stub, tokens: Tokens) -> None:
    file_id = await announced(http, tokens)
    await stub.CancelFile(pb.CancelFileRequest(file_id=file_id, reason="x"), metadata=tokens.metadata("owner"))
    file = (await http.get(f"/api/v1/files/{file_id}", headers=tokens.header("owner"))).json()
    assert (file["owner"], file["cancelled_by"]) == ("ada", "user:ada")
    page = await http.get("/api/v1/audit/events", params={"file_id": file_id}, headers=tokens.header("owner"))
    assert [event["actor"] for event in page.json()["events"]] == ["user:ada", "user:ada"]


async def test_a_caller_hears_who_it_is(http: httpx.AsyncClient, stub: Stub, tokens: Tokens) -> None:
    tokens.add("brief", "kim", "user,monitor", 3600)
    await known(http, tokens, "brief")
    me = (await http.get("/api/v1/me", headers=tokens.header("brief"))).json()
    assert (me["principal"], me["roles"]) == ("kim", ["monitor", "user"])
    assert me["may"] == ["audit", "cancel", "count", "download", "metrics", "read", "write"]
    assert me["credential"] == f"token:{tokens.secrets['brief'].split('_')[1]}"
    left = datetime.fromisoformat(me["expires_at"]) - datetime.now(UTC)
    assert 3500 < left.total_seconds() <= 3600
    answer = await stub.GetCaller(pb.GetCallerRequest(), metadata=tokens.metadata("auditor"))
    assert (answer.principal, list(answer.may), answer.HasField("expires_at")) == (
        "eve",
        ["audit", "count", "metrics", "read"],
        False,
    )


async def test_a_right_that_is_missing_is_named(http: httpx.AsyncClient, stub: Stub, tokens: Tokens) -> None:
    response = await http.post(INITIATE, json=FILE, headers=tokens.header("auditor"))
    challenge = 'Bearer realm="upload", error="insufficient_scope", scope="upload.write"'
    assert (response.status_code, response.headers["www-authenticate"]) == (403, challenge)
    refusal = refusal_of_json(response.json())
    assert (refusal.reason, refusal.metadata) == ("PERMISSION_DENIED", {"scope": "upload.write"})
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.CancelFile(pb.CancelFileRequest(file_id="x"), metadata=tokens.metadata("auditor"))
    assert refusal_of_rpc(caught.value).metadata == {"scope": "upload.cancel"}


async def test_a_refusal_is_logged_without_the_token_and_counted(
    http: httpx.AsyncClient, server: ServerProcess, tokens: Tokens
) -> None:
    wrong = "upl_zzzzzzzz_" + "c" * 43
    line: dict[str, object] | None = None
    async with asyncio.timeout(30):
        # The tests before have had their ten lines of this second.
        while line is None:
            await http.get("/api/v1/statistics", headers={"authorization": f"Bearer {wrong}"})
            await asyncio.sleep(0.1)
            line = next((line for line in server.log if line.get("credential") == "token:zzzzzzzz"), None)
    assert (line["event"], line["reason"], line["door"]) == ("auth.refused", "CREDENTIAL_INVALID", "http")
    assert (line["method"], line["peer"]) == ("GetStatistics", "127.0.0.1")
    began = time.monotonic()
    lines: list[dict[str, object]] = []
    async with asyncio.timeout(30):
        while not lines:
            await asyncio.gather(*(http.get("/api/v1/files", headers=tokens.header("monitor")) for _ in range(40)))
            refused = (line for line in server.log if line.get("reason") == "PERMISSION_DENIED")
            lines = [line for line in refused if line.get("principal") == "prom"]
    # Ten a second, whose ends may lie within what was measured.
    assert len(lines) <= 10 * (int(time.monotonic() - began) + 2)
    text = "".join(map(str, server.log))
    assert not any(secret in text for secret in (wrong, *tokens.secrets.values()))
    metrics = (await http.get("/metrics", headers=tokens.header("monitor"))).text
    found = [line for line in metrics.splitlines() if line.startswith("upload_auth_refused_total{")]
    assert any('door="http"' in line and 'reason="CREDENTIAL_INVALID"' in line for line in found)


async def test_a_token_taken_away_ends_its_upload_and_no_others(
    http: httpx.AsyncClient, stub: Stub, tokens: Tokens
) -> None:
    tokens.add("leaver", "ada", "user")
    stays, goes = [await announced(http, tokens, size_bytes=1 << 20) for _ in range(2)]

    async def opened(call: Any) -> None:
        await call.send(b"x" * 1000)
        await anext(aiter(call.call))

    async with (
        UploadCall(stub, stays, metadata=tokens.metadata("owner")) as staying,
        UploadCall(stub, goes, metadata=await known(http, tokens, "leaver")) as going,
    ):
        await asyncio.gather(opened(staying), opened(going))
        tokens.revoke("leaver")
        async with asyncio.timeout(30):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                async for _ in going.call:
                    pass
        assert refusal_of_rpc(caught.value).reason == "CREDENTIAL_INVALID"
        await staying.send(b"y" * 1000)
        assert not staying.call.done()


async def test_a_token_whose_rights_shrink_ends_what_it_has_open(
    http: httpx.AsyncClient, stub: Stub, server: ServerProcess, tokens: Tokens
) -> None:
    data = b"d" * (9 << 20)
    done, open_ = [await announced(http, tokens, size_bytes=len(data)) for _ in range(2)]
    async with UploadCall(stub, done, metadata=tokens.metadata("owner")) as whole:
        for start in range(0, len(data), 1 << 20):
            await whole.send(data[start : start + (1 << 20)])
        await whole.commit("")
        await whole.hear_until("completed")
    tokens.add("shrunk", "ada", "user,auditor")
    metadata = await known(http, tokens, "shrunk")
    download = stub.DownloadFile(pb.DownloadFileRequest(file_id=done), metadata=metadata)
    staying = stub.DownloadFile(pb.DownloadFileRequest(file_id=done), metadata=tokens.metadata("owner"))
    watch = stub.WatchStatus(pb.WatchStatusRequest(file_ids=[open_]), metadata=metadata)
    async with UploadCall(stub, open_, metadata=metadata) as upload:
        await upload.send(b"x" * 1000)
        for stream in (upload.call, watch, download, staying):
            await anext(aiter(stream))
        reader, writer = await asyncio.open_connection("127.0.0.1", server.http_port, limit=1 << 16)
        head = (
            f"GET /api/v1/files/{done}/content HTTP/1.1\r\nhost: localhost\r\nauthorization: {metadata[0][1]}\r\n\r\n"
        )
        writer.write(head.encode())
        assert b" 200 " in await reader.readline()
        tokens.change("shrunk", "user,auditor", "auditor")
        async with asyncio.timeout(30):
            for call in (upload.call, watch, download):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    async for _ in call:
                        pass
                assert refusal_of_rpc(caught.value).reason == "CREDENTIAL_INVALID"
        # Its head is out: that the connection breaks says it.
        assert len(await reader.read()) < len(data)
        writer.close()
    assert sum([len(message.data) async for message in staying]) == len(data)
    assert (await http.get("/api/v1/files", headers=tokens.header("shrunk"))).status_code == 200


async def left(http: httpx.AsyncClient, server: ServerProcess, tokens: Tokens, who: str, *, lost: bool) -> str:
    """Send some bytes over a socket and go, by a close or as a lost page that asks for no grace; returns the status."""
    file_id = await announced(http, tokens)
    url = f"ws://127.0.0.1:{server.http_port}/api/v1/upload/ws/{file_id}?grace=0"
    async with websockets.connect(url, additional_headers=tokens.header(who)) as socket:
        await socket.send(b"x")
        while (await status_of(http, tokens, file_id)).endswith("PENDING"):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        if lost:
            socket.transport.abort()
    # It ends with what its leaving means.
    while "upload_open_websockets 0.0" not in (await http.get("/metrics", headers=tokens.header("monitor"))).text:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    return await status_of(http, tokens, file_id)


async def status_of(http: httpx.AsyncClient, tokens: Tokens, file_id: str) -> str:
    return str((await http.get(f"/api/v1/files/{file_id}", headers=tokens.header("owner"))).json()["status"])


@pytest.mark.parametrize("lost", [False, True])
async def test_a_page_that_goes_cancels_if_its_caller_may(
    http: httpx.AsyncClient, server: ServerProcess, tokens: Tokens, lost: bool
) -> None:
    tokens.add("sender", "ada", "upload.write,upload.read")
    await known(http, tokens, "sender")
    async with asyncio.timeout(30):
        assert await left(http, server, tokens, "owner", lost=lost) == "UPLOAD_STATUS_CANCELLED"
        assert await left(http, server, tokens, "sender", lost=lost) == "UPLOAD_STATUS_UPLOADING"


async def test_a_hangup_has_the_tokens_read_and_ends_nothing(
    http: httpx.AsyncClient, server: ServerProcess, tokens: Tokens
) -> None:
    before = len(server.log)
    server.popen.send_signal(signal.SIGHUP)
    server.wait_log(lambda line: line in server.log[before:] and line["event"] == "tokens.reloaded")
    assert (await http.get("/api/v1/files", headers=tokens.header("owner"))).status_code == 200


async def known(http: httpx.AsyncClient, tokens: Tokens, who: str) -> tuple[tuple[str, str], ...]:
    """Wait until the server knows a new token."""
    async with asyncio.timeout(30):
        while (await http.get("/api/v1/files", headers=tokens.header(who))).status_code == 401:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    return tokens.metadata(who)


OWN = {"sec-fetch-site": "same-origin"}


async def test_a_page_signs_in_by_its_token_and_out_again(http: httpx.AsyncClient, tokens: Tokens) -> None:
    response = await http.post("/auth/session", headers={**OWN, **tokens.header("owner")})
    assert response.status_code == 204
    name, _, rest = response.headers["set-cookie"].partition("=")
    attributes = rest.partition("; ")[2]
    assert (name, attributes) == ("upload_session", "Path=/; HttpOnly; SameSite=Strict; Max-Age=28800")
    cookie = {"cookie": f"a=b; {name}={rest.partition(';')[0]}"}
    http.cookies.clear()
    me = await http.get("/api/v1/me", headers={**OWN, **cookie})
    assert me.json()["principal"] == "ada"
    # Not for a page of another origin, nor where no browser says whose page it is.
    for strange in (
        {},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "none"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
    ):
        response = await http.get("/api/v1/me", headers={**cookie, **strange})
        assert (response.status_code, refusal_of_json(response.json()).reason) == (401, "CREDENTIAL_MISSING"), strange
    # Two cookies are as two headers.
    twice = {"cookie": f"{cookie['cookie']}; upload_session={tokens.secrets['other']}"}
    response = await http.get("/api/v1/me", headers={**OWN, **twice})
    assert refusal_of_json(response.json()).reason == "CREDENTIAL_INVALID"
    response = await http.delete("/auth/session", headers={**OWN, **cookie})
    gone = response.headers.get_list("set-cookie")
    assert response.status_code == 204
    assert all("Max-Age=0" in one for one in gone)
    assert {one.partition("=")[0] for one in gone} == {"upload_session", "__Host-upload_session"}


async def test_a_socket_of_a_page_that_has_signed_in_needs_no_header(
    http: httpx.AsyncClient, server: ServerProcess, tokens: Tokens
) -> None:
    url = f"ws://127.0.0.1:{server.http_port}/api/v1/upload/ws/{await announced(http, tokens, size_bytes=2)}"
    cookie = {"cookie": f"upload_session={tokens.secrets['owner']}"}
    async with websockets.connect(url, additional_headers=cookie, origin=server.url) as socket:  # type: ignore[arg-type]
        await socket.send(b"ab")
        while (said := json.loads(await socket.recv()))["type"] == "progress":
            pass
        assert said["file"]["owner"] == "ada"


async def test_nobody_else_signs_a_page_in(http: httpx.AsyncClient, tokens: Tokens) -> None:
    for headers, status in (
        (tokens.header("owner"), 403),
        ({**tokens.header("owner"), "sec-fetch-site": "cross-site"}, 403),
        ({**tokens.header("owner"), "origin": "https://evil.example"}, 403),
        ({**OWN}, 401),
        ({**OWN, "authorization": "Bearer upl_aaaaaaaa_" + "b" * 43}, 401),
        # A cookie signs nobody in anew, however often it is shown.
        ({**OWN, "cookie": f"upload_session={tokens.secrets['owner']}"}, 401),
    ):
        response = await http.post("/auth/session", headers=headers)
        assert (response.status_code, "set-cookie" in response.headers) == (status, False), headers
    assert (await http.get("/auth/session", headers=OWN)).status_code == 405


async def ticket_for(http: httpx.AsyncClient, tokens: Tokens, file_id: str, who: str = "owner") -> str:
    """Have a page get a ticket."""
    headers = {**tokens.header(who), "origin": PAGE}
    response = await http.post(TICKETS, json={"file_id": file_id}, headers=headers)
    assert response.status_code == 200, response.text
    assert response.headers["access-control-allow-origin"] == PAGE
    left = datetime.fromisoformat(response.json()["expires_at"]) - datetime.now(UTC)
    assert 0 < left.total_seconds() <= 30
    ticket: str = response.json()["ticket"]
    return ticket


def opened_with(
    server: ServerProcess, file_id: str, *tickets: str, origin: str | None = PAGE, **options: Any
) -> websockets.connect:
    """Open a socket as a page does that can send no header."""
    url = f"ws://127.0.0.1:{server.http_port}/api/v1/upload/ws/{file_id}"
    offered: Any = ["upload.v1", *(f"upload.ticket.{ticket}" for ticket in tickets)]
    return websockets.connect(url, subprotocols=offered, origin=origin, **options)  # type: ignore[arg-type]


async def refused(opening: websockets.connect) -> str:
    """Return why a socket is closed as one that nobody known has opened."""
    async with opening as socket:
        reason = refusal_of_json(json.loads(await socket.recv())["error"]).reason
        with pytest.raises(websockets.ConnectionClosed):
            await socket.recv()
        assert socket.close_code == 4401
    return reason


async def test_a_page_of_another_origin_uploads_by_a_ticket_once(
    http: httpx.AsyncClient, server: ServerProcess, tokens: Tokens
) -> None:
    file_id = await announced(http, tokens, size_bytes=2)
    preflight = {
        "origin": PAGE,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type",
    }
    answer = await http.options(TICKETS, headers=preflight)
    assert (answer.status_code, answer.headers["cache-control"]) == (204, "no-store")
    assert answer.headers["x-content-type-options"] == "nosniff"
    ticket = await ticket_for(http, tokens, file_id)
    async with opened_with(server, file_id, ticket) as socket:
        assert socket.subprotocol == "upload.v1"
        assert socket.response is not None
        assert ticket not in str(socket.response.headers)
        await socket.send(b"ab")
        while (said := json.loads(await socket.recv()))["type"] == "progress":
            pass
        assert (said["type"], said["file"]["owner"]) == ("success", "ada")
    assert await refused(opened_with(server, file_id, ticket)) == "CREDENTIAL_INVALID"
    page = await http.get("/api/v1/audit/events", params={"file_id": file_id}, headers=tokens.header("owner"))
    # Each event is of the token that the ticket was made of.
    token = f"token:{tokens.secrets['owner'].split('_')[1]}"
    assert {(event["actor"], event["credential"]) for event in page.json()["events"]} == {("user:ada", token)}
    assert ticket not in str(server.log)


async def test_a_ticket_is_for_its_file_and_its_page(
    http: httpx.AsyncClient, server: ServerProcess, tokens: Tokens
) -> None:
    file_id, another = await announced(http, tokens), await announced(http, tokens)
    ticket = await ticket_for(http, tokens, file_id)
    second = await ticket_for(http, tokens, file_id)
    for opening in (
        opened_with(server, another, ticket),
        opened_with(server, f"{file_id}%00", ticket),
        opened_with(server, file_id, ticket, origin=server.url),
        opened_with(server, file_id, ticket, origin=None),
        opened_with(server, file_id, ticket, second),
        opened_with(server, file_id, ""),
        opened_with(server, file_id, ticket[:-1]),
        opened_with(server, file_id, "x" * 43),
        # A ticket that is shown counts, whatever else is.
        opened_with(server, file_id, "x" * 43, additional_headers=tokens.header("owner")),
    ):
        assert await refused(opening) == "CREDENTIAL_INVALID"
    # None of that has used it up.
    async with opened_with(server, file_id, ticket) as socket:
        assert json.loads(await socket.recv()) == {"type": "progress", "bytes_received": 0}


async def test_a_refused_ticket_is_logged_and_is_not_in_the_log(server: ServerProcess) -> None:
    wrong, line = "w" * 43, None
    async with asyncio.timeout(30):
        # The tests before have had their ten lines of this second.
        while line is None:
            assert await refused(opened_with(server, "x", wrong)) == "CREDENTIAL_INVALID"
            await asyncio.sleep(0.1)
            line = next((line for line in server.log if "ticket" in str(line.get("why"))), None)
    assert (line["event"], line["door"], line["method"]) == ("auth.refused", "websocket", "UploadFile")
    assert wrong not in str(server.log)


async def test_no_ticket_for_what_a_caller_does_not_see_or_may_not_do(http: httpx.AsyncClient, tokens: Tokens) -> None:
    file_id, gone = await announced(http, tokens), "00000000-0000-4000-8000-000000000000"
    answers = [
        await http.post(TICKETS, json={"file_id": asked}, headers=tokens.header("other")) for asked in (file_id, gone)
    ]
    assert [answer.status_code for answer in answers] == [404, 404]
    assert answers[0].content.replace(file_id.encode(), gone.encode()) == answers[1].content
    for headers, status in ((tokens.header("operator"), 403), ({}, 401)):
        assert (await http.post(TICKETS, json={"file_id": file_id}, headers=headers)).status_code == status
    for body in (b"", b"[]", b"{}", b'{"file_id": 1}', b'{"file_id": ""}', b'{"file_id": "a", "x": 1}', b"[" * 4096):
        assert (await http.post(TICKETS, content=body, headers=tokens.header("owner"))).status_code == 400, body
    response = await http.post(TICKETS, content=b" " * 5000, headers=tokens.header("owner"))
    assert (response.status_code, refusal_of_json(response.json()).metadata["limit"]) == (400, "4096")
    assert (await http.get(TICKETS, headers=tokens.header("owner"))).status_code == 405


async def test_a_token_taken_away_ends_what_its_tickets_have_opened(
    http: httpx.AsyncClient, server: ServerProcess, tokens: Tokens
) -> None:
    tokens.add("fleeting", "ada", "user")
    await known(http, tokens, "fleeting")
    file_id, another = await announced(http, tokens, size_bytes=2000), await announced(http, tokens)
    unused = await ticket_for(http, tokens, another, "fleeting")
    async with opened_with(server, file_id, await ticket_for(http, tokens, file_id, "fleeting")) as socket:
        await socket.send(b"x" * 1000)
        await socket.recv()
        tokens.revoke("fleeting")
        async with asyncio.timeout(30):
            while (said := json.loads(await socket.recv()))["type"] == "progress":
                pass
        assert refusal_of_json(said["error"]).reason == "CREDENTIAL_INVALID"
    assert await refused(opened_with(server, another, unused)) == "CREDENTIAL_INVALID"


CROSS = {"sec-fetch-site": "cross-site"}
LINK = {**CROSS, "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}


async def test_a_page_of_another_site_may_not_even_read_the_api(http: httpx.AsyncClient, tokens: Tokens) -> None:
    file_id = await announced(http, tokens)
    path = f"/api/v1/files/{file_id}"
    strange: list[tuple[str, str, dict[str, str]]] = [
        ("GET", path, {**CROSS, "sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"}),
        ("GET", path, {**CROSS, "sec-fetch-mode": "cors", "origin": "https://evil.example"}),
        ("GET", path, {**LINK, "sec-fetch-dest": "iframe"}),
        ("HEAD", path, CROSS),
        ("GET", f"{path}/content", CROSS),
        ("GET", "/api/v1/watch?all=true", {**CROSS, "accept": "text/event-stream"}),
        ("GET", "/%61pi/v1/me", CROSS),
        ("HEAD", "/api/v1/tus/none", CROSS),
        ("POST", f"/api/v1/upload/cancel/{file_id}", LINK),
    ]
    for method, where, headers in strange:
        response = await http.request(method, where, headers={**headers, **tokens.header("owner")})
        assert response.status_code == 403, (method, where, headers)
        if method != "HEAD":
            assert refusal_of_json(response.json()).reason == "ORIGIN_NOT_ALLOWED"
    for known in (
        {},
        LINK,
        {**LINK, "sec-fetch-dest": ""},
        {"sec-fetch-site": "same-origin"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "none", "sec-fetch-mode": "navigate"},
        {**CROSS, "sec-fetch-mode": "cors", "origin": PAGE},
    ):
        response = await http.get(path, headers={**known, **tokens.header("owner")})
        assert response.status_code == 200, known
    response = await http.post(f"/api/v1/upload/cancel/{file_id}", headers={**CROSS, "origin": PAGE})
    assert response.status_code == 401
    assert (await http.get("/", headers=CROSS)).status_code == 200
    assert (await http.get("/healthz", headers=CROSS)).status_code == 200
