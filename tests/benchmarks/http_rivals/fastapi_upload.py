"""An upload endpoint as one writes it in an afternoon: FastAPI, the body streamed into a file, DELETE removes it.

It neither hashes nor syncs, keeps no state, and a DELETE while bytes come removes the name, not the sender.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from fastapi import FastAPI, HTTPException, Request

FOLDER = Path(os.environ["BENCH_FOLDER"])
_PIECE = 1 << 20

app = FastAPI()


@app.put("/files/{name}", status_code=201)
async def put(name: str, request: Request) -> dict[str, int]:
    """Store a file."""
    size = 0
    waiting = bytearray()
    with (FOLDER / name).open("wb") as out:
        async for chunk in request.stream():
            waiting += chunk
            size += len(chunk)
            if len(waiting) >= _PIECE:
                await asyncio.to_thread(out.write, bytes(waiting))
                waiting.clear()
        out.write(waiting)
    return {"size_bytes": size}


@app.delete("/files/{name}", status_code=204)
async def delete(name: str) -> None:
    """Remove a file."""
    try:
        (FOLDER / name).unlink()
    except FileNotFoundError:
        raise HTTPException(404) from None
