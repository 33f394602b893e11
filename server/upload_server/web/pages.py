"""Decides what a person sees who opens the HTTP port in a browser: small static pages under a strict policy.

Must not hold anything that runs: no script, nothing from elsewhere.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

HTML: Final = b"text/html; charset=utf-8"

_STYLE: Final = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:46rem;margin:3rem auto;padding:0 1rem;color:#1b1f24}"
    "pre,code{font-family:ui-monospace,monospace;background:#f3f4f6;border-radius:4px}pre{padding:.8rem;overflow:auto}"
    "td,th{text-align:left;padding:.2rem 1rem .2rem 0;vertical-align:top}"
    "@media(prefers-color-scheme:dark){body{color:#e6e6e6;background:#16181c}pre,code{background:#24272e}a{color:#8ab4ff}}"
)


@dataclass(frozen=True, slots=True)
class Page:
    """One static answer: its bytes, media type and headers of its own."""

    body: bytes
    content_type: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()


def html_page(title: str, body: str) -> Page:
    """Return a whole HTML page around ``body`` (trusted text); its policy allows its one style and nothing else."""
    text = (
        f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width">\n<title>{title}</title>\n<style>{_STYLE}</style>\n'
        f"{body}\n</html>\n"
    )
    digest = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    headers = (
        (b"content-security-policy", policy.encode()),
        (b"referrer-policy", b"no-referrer"),
        (b"x-frame-options", b"DENY"),
        (b"cross-origin-opener-policy", b"same-origin"),
        (b"cross-origin-resource-policy", b"same-origin"),
    )
    return Page(text.encode(), HTML, headers)


_HOME: Final = """<h1>upload-service</h1>
<p>It takes file uploads and cancels them for certain: a cancelled upload never becomes anything else, its bytes stop
and are removed, and everyone watching hears of it.</p>
<p>This is its HTTP port. Files come in over gRPC (<code>uploadctl</code>) or over a WebSocket.</p>
<pre>uploadctl upload big.bin      # prints the file's id
uploadctl watch --all         # in another terminal
uploadctl cancel FILE_ID</pre>
<p>The same cancel with curl:</p>
<pre>curl -X POST http://localhost:8080/api/v1/upload/cancel/FILE_ID \\
  -H 'Content-Type: application/json' -d '{"reason": "not needed"}'</pre>
<p><a href="/docs">The HTTP API</a> · <a href="/metrics">metrics</a> · <a href="/readyz">readiness</a></p>"""

_ROUTES: Final = (
    ("POST", "/api/v1/upload/initiate", "announce a file"),
    ("POST", "/api/v1/batch/initiate", "announce 1 to 10,000 files that belong together"),
    (
        "GET",
        "/api/v1/files",
        "list files, filtered by <code>status</code> and <code>batch_id</code>, a page at a time",
    ),
    ("GET", "/api/v1/files/{file_id}", "one file"),
    ("GET", "/api/v1/batch/{batch_id}", "one batch"),
    ("POST", "/api/v1/upload/cancel/{file_id}", "cancel a file: <code>reason</code>, <code>request_id</code>"),
    ("POST", "/api/v1/batch/cancel/{batch_id}", "cancel a batch and its files that are not final"),
    ("GET", "/api/v1/watch", "watch: JSON lines, or server-sent events with <code>Accept: text/event-stream</code>"),
    ("GET", "/api/v1/audit/events", "the audit trail"),
    ("WebSocket", "/api/v1/upload/ws/{file_id}", "send a file's bytes; closing the socket cancels"),
    ("GET", "/healthz, /readyz, /metrics", "for machines"),
)


def default_pages(openapi: bytes | None = None) -> Mapping[str, Page]:
    """Return the pages by path; ``/openapi.json`` only when its bytes are given."""
    rows = "\n".join(
        f"<tr><td><code>{method}</code></td><td><code>{path}</code></td><td>{what}</td></tr>"
        for method, path, what in _ROUTES
    )
    link = '<p><a href="/openapi.json">openapi.json</a></p>' if openapi is not None else ""
    docs = f'<h1>The HTTP API</h1>\n<table>\n{rows}\n</table>\n{link}<p><a href="/">back</a></p>'
    pages = {"/": html_page("upload-service", _HOME), "/docs": html_page("upload-service: HTTP API", docs)}
    if openapi is not None:
        pages["/openapi.json"] = Page(openapi, b"application/json")
    return pages
