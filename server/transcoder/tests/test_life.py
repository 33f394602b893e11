"""The life of a call: deadlines, clients that leave, metadata, bodies, and the other ASGI scopes."""

import asyncio
import gc
import time
from typing import Any

import grpc
import pytest

from toy.asgi_client import Exchange, request
from toy.toy_service import Toy, make_toy
from transcoder import HttpContext, RequestLimits


async def context_of(toy: Toy, headers: Any) -> dict[str, Any]:
    answer = await request(toy.app, "GET", "/v1/context", headers=headers)
    assert answer.status == 200, answer.body
    seen: dict[str, Any] = answer.json()
    return seen


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("1H", 3600),
        ("2M", 120),
        ("3S", 3),
        ("4000m", 4),
        ("5000000u", 5),
        ("99999999n", 0.099999999),
        ("99999999H", 359999996400),
    ],
)
async def test_every_unit_of_grpc_timeout(toy: Toy, value: str, seconds: float) -> None:
    remaining = (await context_of(toy, [("Grpc-Timeout", value)]))["remaining"]
    assert seconds - 1 < remaining <= seconds


@pytest.mark.parametrize(
    "value", ["", "1", "S", "1s", "1h", "-1S", "+1S", "1.5S", " 1S", "1 S", "1SS", "S1", "123456789S", "1e3S", "\xb2S"]
)
async def test_malformed_timeouts(toy: Toy, value: str) -> None:
    answer = await request(toy.app, "GET", "/v1/context", headers=[("grpc-timeout", value)])
    assert (answer.status, answer.json()["code"]) == (400, 3)


async def test_no_timeout_means_no_deadline(toy: Toy) -> None:
    assert (await context_of(toy, ()))["remaining"] is None
    assert 6 < (await context_of(make_toy(default_timeout=7), ()))["remaining"] <= 7
    assert (await context_of(make_toy(default_timeout=7), [("grpc-timeout", "1H")]))["remaining"] > 3000


@pytest.mark.parametrize("value", ["20m", "0S", "1n"])
async def test_a_deadline_ends_the_handler(toy: Toy, value: str) -> None:
    answer = await request(toy.app, "GET", "/v1/fail?how=hang", headers=[("grpc-timeout", value)])
    assert (answer.status, answer.json()) == (504, {"code": 4, "message": "deadline exceeded", "details": []})
    assert toy.echoes.context is None or toy.echoes.context.cancelled()
    assert toy.echoes.outcome in ("cancelled", "")


@pytest.mark.parametrize("target", ["/v1/books/1", "/v1/count?up_to=1"])
async def test_a_deadline_that_has_passed_already(toy: Toy, target: str) -> None:
    answer = await request(toy.app, "GET", target, headers=[("grpc-timeout", "0S")])
    assert (answer.status, answer.json()["code"]) == (504, 4)
    assert toy.shelves.called == ""
    assert not toy.streams.entered.is_set()


async def test_a_deadline_is_told_before_the_handler_has_cleaned_up(toy: Toy) -> None:
    release = asyncio.Event()

    async def stubborn(*_unused: object) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await release.wait()

    toy.echoes._metadata = stubborn  # type: ignore[method-assign, assignment]
    exchange = Exchange(toy.app, "GET", "/v1/fail?how=metadata", [("grpc-timeout", "10m")])
    exchange.feed()
    task = asyncio.create_task(exchange.run())
    await exchange.chunks(1)
    assert exchange.answer.status == 504
    assert not task.done()
    release.set()
    await task


async def test_a_request_is_over_when_its_client_has_been_told_of_the_deadline(toy: Toy) -> None:
    exchange = Exchange(toy.app, "GET", "/v1/fail?how=hang", [("grpc-timeout", "10m")])
    exchange.feed()
    exchange.may_send.clear()
    task = asyncio.create_task(exchange.run())
    await toy.echoes.ended.wait()
    for _ in range(10):
        await asyncio.sleep(0)
    assert not task.done()
    exchange.may_send.set()
    answer = await task
    assert (answer.status, answer.complete) == (504, True)


async def test_a_server_may_cancel_a_request_whose_handler_cleans_up(toy: Toy) -> None:
    async def stubborn(*_unused: object) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.Event().wait()

    toy.echoes._metadata = stubborn  # type: ignore[method-assign, assignment]
    exchange = Exchange(toy.app, "GET", "/v1/fail?how=metadata", [("grpc-timeout", "10m")])
    exchange.feed()
    task = asyncio.create_task(exchange.run())
    await exchange.chunks(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_clean_up_that_fails_is_logged_and_changes_nothing(toy: Toy, caplog: pytest.LogCaptureFixture) -> None:
    async def clumsy(*_unused: object) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise ValueError("secret")

    toy.echoes._metadata = clumsy  # type: ignore[method-assign, assignment]
    answer = await request(toy.app, "GET", "/v1/fail?how=metadata", headers=[("grpc-timeout", "10m")])
    assert (answer.status, answer.json()["message"]) == (504, "deadline exceeded")
    assert "failed to clean up" in caplog.text


async def test_a_client_that_leaves_ends_the_handler(toy: Toy) -> None:
    exchange = Exchange(toy.app, "GET", "/v1/fail?how=hang")
    exchange.feed()
    task = asyncio.create_task(exchange.run())
    await toy.echoes.entered.wait()
    exchange.disconnect()
    answer = await task
    assert toy.echoes.outcome == "cancelled"
    assert answer.status == 0
    assert toy.echoes.context is not None
    assert toy.echoes.context.cancelled()
    assert toy.echoes.context.done()


async def test_a_server_that_cancels_the_request_cancels_the_handler(toy: Toy) -> None:
    exchange = Exchange(toy.app, "GET", "/v1/fail?how=hang")
    exchange.feed()
    task = asyncio.create_task(exchange.run())
    await toy.echoes.entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert toy.echoes.outcome == "cancelled"


async def test_a_client_that_leaves_while_it_sends(toy: Toy) -> None:
    exchange = Exchange(toy.app, "POST", "/v1/echo")
    exchange.feed(b"{", more=True)
    exchange.disconnect()
    assert (await exchange.run()).status == 0
    assert toy.echoes.last is None


async def test_a_body_in_parts(toy: Toy) -> None:
    exchange = Exchange(toy.app, "POST", "/v1/echo")
    for part in (b'{"int32', b"", b'_value": ', b"7}"):
        exchange.feed(part, more=True)
    exchange.feed()
    assert (await exchange.run()).json()["int32_value"] == 7


async def test_a_server_whose_receive_never_waits(toy: Toy) -> None:
    """Some test servers answer `receive` with the same message for ever."""
    answer: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        answer.append(message)

    exchange = Exchange(toy.app, "GET", "/v1/count?up_to=3")
    await toy.app(exchange._scope, receive, send)
    assert answer[0]["status"] == 200
    assert answer[-1]["more_body"] is False


async def test_metadata_in(toy: Toy) -> None:
    headers = [
        ("Grpc-Metadata-X-One", "1"),
        ("grpc-metadata-x-one", "2"),
        ("Grpc-Metadata-Raw-Bin", "AP8="),
        ("Grpc-Metadata-Bare-Bin", "AP8"),
        ("Authorization", "Bearer t"),
        ("User-Agent", "toy/1"),
        ("Accept", "*/*"),
        ("Host", "toy.example"),
        ("X-Forwarded-For", "198.51.100.1"),
        ("X-Dropped", "x"),
        ("Connection", "close"),
        ("Grpc-Metadata-Grpc-Timeout", "1S"),
        ("Grpc-Metadata-Te", "x"),
        ("Grpc-Metadata-B\xe4d", "x"),
        ("Grpc-Metadata-Bad-Value", "\xe4"),
        ("Grpc-Metadata-", "x"),
        ("Origin", "\xe4"),
    ]
    headers = [(key.encode().decode("latin-1"), value) for key, value in headers]
    seen = await context_of(toy, headers)
    assert seen["metadata"] == {
        "x-one": ["1", "2"],
        "raw-bin": ["00ff"],
        "bare-bin": ["00ff"],
        "authorization": ["Bearer t"],
        "grpcgateway-authorization": ["Bearer t"],
        "grpcgateway-user-agent": ["toy/1"],
        "grpcgateway-accept": ["*/*"],
        "grpcgateway-host": ["toy.example"],
        "x-forwarded-host": ["toy.example"],
        "x-forwarded-for": ["198.51.100.1, 192.0.2.7"],
    }
    assert seen["peer"] == "ipv4:192.0.2.7:4711"


@pytest.mark.parametrize("value", ["A", "A*==", "\xff", "AA=A"])
async def test_binary_metadata_that_is_no_base64(toy: Toy, value: str) -> None:
    answer = await request(toy.app, "GET", "/v1/context", headers=[("grpc-metadata-x-bin", value)])
    assert (answer.status, answer.json()["code"]) == (400, 3)


async def test_metadata_that_the_service_adds() -> None:
    toy = make_toy(extra_metadata=(("x-door", "http"),))
    assert (await context_of(toy, ()))["metadata"]["x-door"] == ["http"]


async def test_the_context_knows_its_http_request(toy: Toy) -> None:
    await request(toy.app, "GET", "/v1/context?id=a%2Fb", headers=[("x-own", "1")])
    context = toy.echoes.context
    assert isinstance(context, HttpContext)
    assert isinstance(context, grpc.aio.ServicerContext)
    assert (context.http.method, context.http.path, context.http.template) == ("GET", "/v1/context", "/v1/context")
    assert (b"x-own", b"1") in context.http.headers
    assert context.http.client == ("192.0.2.7", 4711)
    assert context.rpc_method == "/toy.v1.Echoes/Context"


async def test_the_context_behaves_as_grpc_aios(toy: Toy) -> None:
    called: list[object] = []

    async def explore(_request: Any, context: Any, _code: object) -> Any:
        context.add_done_callback(called.append)
        context.add_done_callback(lambda _context: 1 / 0)
        assert (context.code(), context.details(), context.trailing_metadata()) == (None, "", ())
        assert (context.cancelled(), context.done(), context.time_remaining()) == (False, False, None)
        assert (context.auth_context(), context.peer_identities(), context.peer_identity_key()) == ({}, None, None)
        context.set_compression(grpc.Compression.Gzip)
        context.disable_next_message_compression()
        pairs = context.invocation_metadata()
        assert [(pair.key, pair.value) for pair in pairs] == list(pairs)
        await context.send_initial_metadata(grpc.aio.Metadata(("x-a", "1")))
        with pytest.raises(grpc.aio.UsageError):
            await context.send_initial_metadata(())
        context.set_trailing_metadata(None)
        with pytest.raises(grpc.aio.UsageError):
            await context.read()
        with pytest.raises(grpc.aio.UsageError):
            await context.write(None)
        context.set_code(5)
        context.set_details("d")
        assert (context.code(), context.details()) == (grpc.StatusCode.NOT_FOUND, "d")
        with pytest.raises(grpc.aio.AbortError):
            await context.abort(grpc.StatusCode.ABORTED)
        with pytest.raises(grpc.aio.UsageError):
            await context.abort(grpc.StatusCode.INTERNAL)

    toy.echoes._metadata = explore  # type: ignore[method-assign, assignment]
    answer = await request(toy.app, "GET", "/v1/fail?how=metadata")
    assert (answer.status, answer.json()) == (409, {"code": 10, "message": "d", "details": []})
    assert called == [toy.echoes.context]


@pytest.mark.parametrize(
    ("client", "peer"),
    [(("::1", 5), "ipv6:[::1]:5"), (None, "unknown"), (("unix", None), "unknown"), (("/run/x", 0), "unknown")],
)
async def test_peers(toy: Toy, client: Any, peer: str) -> None:
    exchange = Exchange(toy.app, "GET", "/v1/context")
    exchange._scope["client"] = client
    exchange.feed()
    seen = (await exchange.run()).json()
    if client is None or client[0] == "::1":
        assert seen["peer"] == peer
    assert seen["peer"]


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/v1/books/" + "x" * 70_000, 414),
        ("/v1/echo?" + "x" * 70_000, 414),
        ("/" * 70_000, 414),
        ("/:" * 4_000, 404),
        ("/v1/books/" + "x" * 9_000, 414),
    ],
    ids=["path", "query", "slashes", "colons", "long"],
)
async def test_huge_urls_are_refused_fast(toy: Toy, target: str, status: int) -> None:
    start = time.process_time()
    answer = await request(toy.app, "GET", target)
    assert answer.status == status
    assert time.process_time() - start < 1.0


@pytest.mark.parametrize("segment", [":cancel", "a:", ":", "a:cancel:", "%3A"])
async def test_long_paths_of_colons_are_cheap(segment: str) -> None:
    toy = make_toy(max_path_bytes=100_000)
    start = time.process_time()
    answer = await request(toy.app, "GET", "/v1/books/" + segment * (60_000 // len(segment)))
    assert answer.status == 200
    assert time.process_time() - start < 1.0


async def test_a_body_that_is_declared_too_large_is_not_read(toy: Toy) -> None:
    exchange = Exchange(toy.app, "POST", "/v1/echo", [("content-length", "8388609")])
    exchange.disconnect()
    answer = await exchange.run()
    assert (answer.status, answer.json()["code"]) == (413, 8)
    assert answer.header("connection") == "close"


async def test_a_body_that_grows_too_large() -> None:
    toy = make_toy(request_limits=RequestLimits(max_bytes=1000))
    exchange = Exchange(toy.app, "POST", "/v1/echo")
    for _ in range(11):
        exchange.feed(b"x" * 100, more=True)
    exchange.feed()
    answer = await exchange.run()
    assert (answer.status, answer.json()) == (
        413,
        {"code": 8, "message": "the request body is larger than 1000 bytes", "details": []},
    )
    assert (await request(toy.app, "POST", "/v1/echo", b" " * 998 + b"{}")).status == 200


async def test_a_chunked_body_that_never_ends() -> None:
    toy = make_toy(request_limits=RequestLimits(max_bytes=1000))
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"x" * 65536, "more_body": True}

    async def send(message: Any) -> None:
        sent.append(message)

    start = time.process_time()
    await toy.app(Exchange(toy.app, "POST", "/v1/echo")._scope, receive, send)
    assert sent[0]["status"] == 413
    assert time.process_time() - start < 1.0


@pytest.mark.parametrize("options", [{"body_timeout": 0.05}, {"body_idle_timeout": 0.05}])
async def test_a_body_that_never_comes(options: dict[str, float]) -> None:
    toy = make_toy(**options)
    exchange = Exchange(toy.app, "POST", "/v1/echo")
    exchange.feed(b"{", more=True)
    task = asyncio.create_task(exchange.run())
    await exchange.chunks(1)
    exchange.disconnect()
    answer = await task
    assert (answer.status, answer.json()["code"], answer.header("connection")) == (408, 4, "close")


async def test_empty_chunks_without_end() -> None:
    toy = make_toy(body_idle_timeout=0.05)
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": True}

    async def send(message: Any) -> None:
        sent.append(message)

    await toy.app(Exchange(toy.app, "POST", "/v1/echo")._scope, receive, send)
    assert sent[0]["status"] == 408


async def test_the_deadline_covers_the_body(toy: Toy) -> None:
    exchange = Exchange(toy.app, "POST", "/v1/echo", [("grpc-timeout", "20m")])
    exchange.feed(b"{", more=True)
    task = asyncio.create_task(exchange.run())
    await exchange.chunks(1)
    exchange.disconnect()
    answer = await task
    assert (answer.status, answer.json()["code"]) == (504, 4)


async def test_lifespan(toy: Toy) -> None:
    incoming = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    sent: list[str] = []

    async def receive() -> dict[str, Any]:
        return incoming.pop(0)

    async def send(message: Any) -> None:
        sent.append(message["type"])

    await toy.app({"type": "lifespan"}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


async def test_websockets_are_refused(toy: Toy) -> None:
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    await toy.app({"type": "websocket", "path": "/v1/count"}, receive, send)
    assert [message["type"] for message in sent] == ["websocket.close"]


async def test_other_scopes_are_an_error(toy: Toy) -> None:
    with pytest.raises(ValueError, match="unknown ASGI scope"):
        await toy.app({"type": "carrier pigeon"}, None, None)  # type: ignore[arg-type]


async def test_a_receive_that_fails_ends_no_call(toy: Toy, caplog: pytest.LogCaptureFixture) -> None:
    exchange = Exchange(toy.app, "GET", "/v1/count?up_to=2")

    async def receive() -> dict[str, Any]:
        raise IndexError

    await toy.app(exchange._scope, receive, exchange._send)  # type: ignore[arg-type]
    assert len(exchange.answer.lines()) == 2
    assert "no longer watched" in caplog.text


@pytest.mark.parametrize("target", ["/v1/count?up_to=1000000000", "/v1/books/1", "/nowhere"])
async def test_a_send_that_fails_is_a_disconnect(toy: Toy, target: str, caplog: pytest.LogCaptureFixture) -> None:
    exchange = Exchange(toy.app, "GET", target)
    sends = 0

    async def send(_message: Any) -> None:
        nonlocal sends
        sends += 1
        if sends > 1:
            raise BrokenPipeError

    await toy.app(exchange._scope, exchange.incoming.get, send)
    assert sends == 2
    assert not [record for record in caplog.records if record.name.startswith("transcoder")]


async def test_a_fault_of_the_transcoder_is_told_as_one(toy: Toy, caplog: pytest.LogCaptureFixture) -> None:
    async def odd(_request: Any, context: Any, _code: object) -> Any:
        await context.abort(5, b"bytes \xff")

    toy.echoes._metadata = odd  # type: ignore[method-assign, assignment]
    answer = await request(toy.app, "GET", "/v1/fail?how=metadata")
    assert answer.json()["message"] == "bytes \ufffd"

    async def worse(_request: Any, context: Any, _code: object) -> Any:
        await context.abort(5, "m", (("x-number", 1),))

    toy.echoes._metadata = worse  # type: ignore[method-assign, assignment]
    answer = await request(toy.app, "GET", "/v1/fail?how=metadata")
    assert (answer.status, answer.json()["code"]) == (500, 2)
    assert "outside of the servicer" in caplog.text


async def test_a_call_leaves_nothing_to_the_collector_of_cycles(toy: Toy) -> None:
    async def call() -> None:
        assert (await request(toy.app, "POST", "/v1/echo", {"int32_value": 7})).status == 200

    async def left() -> int:
        gc.collect()
        for _ in range(10):
            await call()
        return gc.collect()

    await call()
    gc.disable()
    try:
        # Threads of other tests may leave something meanwhile, but not each time.
        assert min([await left() for _ in range(5)]) == 0
    finally:
        gc.enable()


async def test_plain_functions_serve_too(toy: Toy) -> None:
    toy.echoes._metadata = lambda request_message, *_unused: _later(request_message)  # type: ignore[method-assign]
    assert (await request(toy.app, "GET", "/v1/fail?how=metadata")).status == 200


async def _later(value: Any) -> Any:
    return value


async def test_a_call_can_be_refused_before_its_body_comes() -> None:
    asked: list[HttpContext] = []

    async def before_body(context: HttpContext) -> str:
        asked.append(context)
        if len(asked) == 1:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "who?")
        return "somebody"

    toy = make_toy(before_body=before_body)
    exchange = Exchange(toy.app, "POST", "/v1/echo", [("content-length", "8000000")])
    running = asyncio.create_task(exchange.run())
    await exchange.chunks(1)
    assert (exchange.answer.status, exchange.answer.json()["message"]) == (401, "who?")
    # Read off behind its answer: who sends on still gets to see it.
    exchange.feed(b"x" * 1000, more=True)
    exchange.feed()
    assert (await running).complete

    answer = await request(toy.app, "POST", "/v1/echo", {}, [("content-length", "2")])
    assert answer.status == 200
    assert asked[1].known == "somebody"
    assert (await request(toy.app, "GET", "/v1/context")).status == 200
    assert len(asked) == 2
