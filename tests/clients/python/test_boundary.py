"""What comes over the wire and what becomes of it: errors, channels, the package's names, its examples."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
import textwrap
from collections.abc import Generator
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import StatusCode

import upload
from clients.python.conftest import Calls
from clients.python.scripted import Refusal, Running
from support.process import ServerProcess
from upload import AsyncClient, Client, errors
from upload.blocking import drive
from upload.channel import Lane, channel_options


@pytest.mark.parametrize(
    ("refusal", "kind", "words"),
    [
        (Refusal(StatusCode.UNAUTHENTICATED, message="no token"), errors.AccessDenied, "no token"),
        (Refusal(StatusCode.UNIMPLEMENTED), errors.UploadServiceError, "no upload service of this version"),
        (Refusal(StatusCode.DATA_LOSS, message="oh"), errors.UploadServiceError, "DATA_LOSS: oh"),
        (Refusal(StatusCode.NOT_FOUND, "BRAND_NEW", "New"), errors.UploadServiceError, "New"),
        (Refusal(StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", "file_id: too long"), errors.InvalidField, "too long"),
    ],
)
async def test_each_refusal_becomes_its_exception(
    call: Calls, scripted: Running, refusal: Refusal, kind: type[errors.UploadServiceError], words: str
) -> None:
    scripted.service.faults["GetFile"] = [refusal]
    with pytest.raises(kind, match=words) as caught:
        await call("get", "f")
    assert (caught.value.code, caught.value.reason) == (refusal.code, refusal.reason or kind.reason)
    assert isinstance(caught.value.__cause__, grpc.RpcError)


async def test_a_server_without_a_certificate_is_told_plainly(scripted: Running) -> None:
    credentials = grpc.ssl_channel_credentials()
    async with AsyncClient(scripted.target, credentials=credentials, timeout=5) as client:
        with pytest.raises(errors.ServerUnreachable, match="speaks plain text"):
            await client.get("f")


async def test_metadata_goes_with_every_call(scripted: Running) -> None:
    seen: list[Any] = []
    scripted.service._unary = _spy(scripted.service._unary, seen)  # type: ignore[method-assign]
    scripted.service.add("f-1")
    async with AsyncClient(scripted.target, metadata=[("authorization", "Bearer x")]) as client:
        await client.get("f-1")
    assert ("authorization", "Bearer x") in [tuple(pair) for pair in seen]


def _spy(inner: Any, seen: list[Any]) -> Any:
    async def spying(method: str, request: Any, context: Any, answer: Any) -> Any:
        seen.extend(context.invocation_metadata())
        return await inner(method, request, context, answer)

    return spying


def test_lanes_differ_where_they_must() -> None:
    main, watch = (dict(channel_options("server:1", lane)) for lane in (Lane.MAIN, Lane.WATCH))
    assert watch["grpc.http2.bdp_probe"] == 0
    assert "grpc.http2.bdp_probe" not in main
    assert main["grpc.use_local_subchannel_pool"] == 1
    assert "grpc.enable_http_proxy" not in main
    for target in ("localhost:1", "127.0.0.1:1", "[::1]:1"):
        assert dict(channel_options(target, Lane.MAIN))["grpc.enable_http_proxy"] == 0
    assert channel_options("a:1", Lane.MAIN, [("grpc.keepalive_time_ms", 5)])[-1] == ("grpc.keepalive_time_ms", 5)


def test_the_generated_code_does_not_load_the_client() -> None:
    program = "import sys, upload.v1.upload_pb2; print(sorted(m for m in sys.modules if m.startswith('upload.')))"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert ast.literal_eval(done.stdout) == ["upload.v1", "upload.v1.upload_pb2"]


def test_the_package_gives_the_names_it_promises() -> None:
    for name in upload.__all__:
        assert getattr(upload, name) is not None
    with pytest.raises(AttributeError, match="nothing"):
        _ = upload.nothing  # type: ignore[attr-defined]


def test_both_clients_offer_the_same() -> None:
    def offers(kind: type) -> dict[str, list[str]]:
        methods = inspect.getmembers(kind, inspect.isfunction)
        return {name: list(inspect.signature(method).parameters) for name, method in methods if name[0] != "_"}

    assert offers(Client) == offers(AsyncClient)
    for name, method in inspect.getmembers(Client, inspect.isfunction):
        if name[0] != "_":
            assert method.__doc__ == re.sub(r"\b(await|async) ", "", getattr(AsyncClient, name).__doc__), name


async def test_a_closed_client_says_so(scripted: Running) -> None:
    client, blocking = AsyncClient(scripted.target), Client(scripted.target)
    await client.close()
    blocking.close()
    with pytest.raises(RuntimeError, match="closed"):
        await client.get("f")
    with pytest.raises(RuntimeError, match="closed"):
        blocking.get("f")


def test_the_blocking_driver_refuses_what_suspends() -> None:
    class Suspends:
        def __await__(self) -> Generator[None, None, None]:
            yield

    with pytest.raises(RuntimeError, match="something other than its transport"):
        drive(Suspends())


EXAMPLES = [
    pytest.param(kind, name, id=f"{kind.__name__}.{name}")
    for kind in (AsyncClient, Client)
    for name, member in inspect.getmembers(kind, inspect.isfunction)
    if "Example::" in (member.__doc__ or "")
]


@pytest.mark.parametrize(("kind", "name"), EXAMPLES)
async def test_the_example_in_the_docstring_runs(
    kind: type[Any], name: str, server: ServerProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for path in ("film.mkv", "report.pdf"):
        (tmp_path / path).write_bytes(b"x")
    example = textwrap.dedent(getattr(kind, name).__doc__.split("Example::")[1])
    code = compile(example, f"<example of {name}>", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    with Client(server.target) as client:
        file = client.initiate("a", 1)
        batch = client.initiate_batch([upload.FileSpec(filename="a", size_bytes=1)]).batch
        if name == "watch":
            client.cancel(file.file_id)
        if name in {"download", "delete_content"}:
            file = client.put(b"x", filename="a")
        names = {"file_id": file.file_id, "batch_id": batch.batch_id, "FileSpec": upload.FileSpec, "client": client}
        names["timedelta"] = timedelta
        if kind is Client:
            exec(code, names)  # noqa: S102 - it is our own documentation
            return
        async with AsyncClient(server.target) as names["client"]:
            running = eval(code, names)  # noqa: S307 - as above
            if running is not None:
                await running
