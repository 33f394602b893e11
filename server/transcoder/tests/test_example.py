"""The example of the README serves its toy service over a real socket."""

import asyncio
import importlib
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import uvicorn

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
async def http(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the example."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    app = importlib.import_module("serve").app
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_level="warning"))
        serving = asyncio.create_task(server.serve([listening]))
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{listening.getsockname()[1]}") as client:
            yield client
        server.should_exit = True
        await serving
    for name in ("serve", "greeter_pb2"):
        sys.modules.pop(name, None)


async def test_the_example_answers(http: httpx.AsyncClient) -> None:
    assert (await http.get("/v1/hello/world")).json() == {"message": "Hello, world!"}
    missing = await http.get("/v1/hello/nobody")
    assert (missing.status_code, missing.json()["message"]) == (404, "nobody is here")
    lines = (await http.get("/v1/count", params={"up_to": 2})).text.splitlines()
    assert lines == ['{"result":{"number":1}}', '{"result":{"number":2}}']


def test_the_example_is_that_of_the_readme() -> None:
    readme = (EXAMPLES.parent / "README.md").read_text()
    block = readme.split("```python\n")[1].split("```")[0]
    assert block in (EXAMPLES / "serve.py").read_text()


def test_the_example_is_some_twenty_lines() -> None:
    code = [line for line in (EXAMPLES / "serve.py").read_text().splitlines() if line.strip()]
    assert len(code) <= 20
