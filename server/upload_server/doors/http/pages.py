"""Decides what a person sees who opens the HTTP port in a browser: static pages, each under a strict policy.

Must not load anything from elsewhere. The one script is the viewer of the API's document, which this server ships.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from typing import Final

from upload_server.doors.http.asgi import Scope, Send, headers_of

HTML: Final = b"text/html; charset=utf-8"

_STYLE: Final = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:46rem;margin:3rem auto;padding:0 1rem;color:#1b1f24}"
    "pre,code{font-family:ui-monospace,monospace;background:#f3f4f6;border-radius:4px}pre{padding:.8rem;overflow:auto}"
    "td,th{text-align:left;padding:.2rem 1rem .2rem 0;vertical-align:top}"
    "@media(prefers-color-scheme:dark){body{color:#e6e6e6;background:#16181c}pre,code{background:#24272e}a{color:#8ab4ff}}"
)


# Asked for again each time, answered with 304 while it is the same.
_REVALIDATED: Final = b"no-cache"
# Its name carries its version.
_IMMUTABLE: Final = b"public, max-age=31536000, immutable"


@dataclass(frozen=True, slots=True)
class Page:
    """One static answer: its bytes, media type, how long it may be kept, and headers of its own."""

    body: bytes
    content_type: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()
    cache_control: bytes = _REVALIDATED
    etag: bytes = field(init=False)

    def __post_init__(self) -> None:
        """Name the content by its digest."""
        digest = hashlib.sha256(self.body).hexdigest()[:32]
        object.__setattr__(self, "etag", f'"{digest}"'.encode())


async def serve_page(page: Page, scope: Scope, send: Send) -> None:
    """Answer a GET or HEAD with ``page``, or with 304 where the browser has it already."""
    headers = [
        (b"cache-control", page.cache_control),
        (b"etag", page.etag),
        (b"x-content-type-options", b"nosniff"),
        *page.headers,
    ]
    if page.etag in (tag.strip() for value in headers_of(scope, b"if-none-match") for tag in value.split(b",")):
        await send({"type": "http.response.start", "status": 304, "headers": headers})
        await send({"type": "http.response.body", "body": b""})
        return
    length = str(len(page.body)).encode()
    headers = [(b"content-type", page.content_type), (b"content-length", length), *headers]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": page.body})


def html_page(title: str, body: str, style: str = _STYLE, policy: str = "") -> Page:
    """Return a whole HTML page around ``body`` (trusted text); ``policy`` instead of "its style and nothing else"."""
    text = (
        f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width">\n<title>{title}</title>\n'
        f'<link rel="icon" href="data:,">\n<style>{style}</style>\n{body}\n</html>\n'
    )
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    allowed = policy or f"style-src 'sha256-{digest}'"
    return Page(text.encode(), HTML, _protected(f"{allowed}; img-src data:"))


def _protected(allowed: str) -> tuple[tuple[bytes, bytes], ...]:
    """Headers of a page that may load what ``allowed`` says and nothing else."""
    rules = f"default-src 'none'; {allowed}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    return (
        (b"content-security-policy", rules.encode()),
        (b"referrer-policy", b"no-referrer"),
        (b"x-frame-options", b"DENY"),
        (b"cross-origin-opener-policy", b"same-origin"),
        (b"cross-origin-resource-policy", b"same-origin"),
    )


# The console is built from clients/typescript/console: it talks to this server only, over HTTP and WebSocket.
_CONSOLE_POLICY: Final = "script-src 'self'; style-src 'self'; connect-src 'self'; worker-src 'self'"
_CONSOLE_FILES: Final = {
    "app.js": b"text/javascript; charset=utf-8",
    "app.css": b"text/css; charset=utf-8",
    "ticker.js": b"text/javascript; charset=utf-8",
    "icon.svg": b"image/svg+xml",
}

_VIEWER: Final = "openapi-explorer-2.4.820.min.js"
_VIEWER_STYLE: Final = (
    "body{margin:0;font:14px/1.4 system-ui,sans-serif}nav{padding:.5rem 1.5rem}nav a{color:#2557d6}"
    "openapi-explorer{height:calc(100vh - 2.4rem)}"
)
# The viewer asks this server only: for the document, and for what its reader tries out. It makes style sheets as it
# goes, which are harmless while nothing can be loaded from elsewhere; scripts are this server's files alone.
_VIEWER_POLICY: Final = "style-src 'unsafe-inline'; script-src 'self'; connect-src 'self'"
# By relative addresses: a proxy may serve the page under a prefix.
_DOCS: Final = f"""<nav><a href="./">← Uploads</a></nav>
<script type="module" src="docs/{_VIEWER}"></script>
<openapi-explorer spec-url="openapi.json" hide-authentication hide-server-selection>
</openapi-explorer>
<noscript>This page needs scripts. The document itself: <a href="openapi.json">openapi.json</a></noscript>"""


def default_pages() -> Mapping[str, Page]:
    """Return the pages by path; reads them from the package."""
    files = resources.files("upload_server.doors.http").joinpath("openapi")
    document = files.joinpath("openapi.json").read_bytes()
    viewer = files.joinpath("viewer", _VIEWER).read_bytes()
    return {
        **_console_pages(),
        "/docs": html_page("upload-service: HTTP API", _DOCS, _VIEWER_STYLE, _VIEWER_POLICY),
        f"/docs/{_VIEWER}": Page(viewer, b"text/javascript; charset=utf-8", cache_control=_IMMUTABLE),
        "/openapi.json": Page(document, b"application/json"),
    }


def _console_pages() -> Mapping[str, Page]:
    files = resources.files("upload_server.doors.http").joinpath("console")
    home = Page(files.joinpath("index.html").read_bytes(), HTML, _protected(f"{_CONSOLE_POLICY}; img-src 'self'"))
    parts = {f"/console/{name}": Page(files.joinpath(name).read_bytes(), kind) for name, kind in _CONSOLE_FILES.items()}
    return {"/": home, **parts}
