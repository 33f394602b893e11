"""An issuer of tokens on loopback, whose keys and manners a test chooses."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

AUDIENCE = "https://upload.example"
_KINDS: Mapping[str, Any] = {
    "RS256": lambda: rsa.generate_private_key(65537, 2048),
    "PS256": lambda: rsa.generate_private_key(65537, 2048),
    "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "ES384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate,
}
Json = dict[str, Any]


class SigningKey:
    """A key pair with its id."""

    def __init__(self, kid: str, algorithm: str = "ES256", key: Any = None) -> None:
        self.kid = kid
        self.algorithm = algorithm
        self.private = key or _KINDS[algorithm]()

    @property
    def jwk(self) -> Json:
        """What its issuer publishes."""
        made = jwt.get_algorithm_by_name(self.algorithm)
        return {**made.to_jwk(self.private.public_key(), as_dict=True), "kid": self.kid, "use": "sig"}

    def sign_text(self, text: bytes) -> str:
        """Return a token whose claims are this text."""
        head = {"kid": self.kid, "typ": "at+jwt"}
        return str(jwt.PyJWS().encode(text, self.private, self.algorithm, head))

    def sign(self, claims: Mapping[str, Any], **head: Any) -> str:
        """Return a token; a header of None is left out."""
        headers = {"kid": self.kid, "typ": "at+jwt", **head}
        text = jwt.encode(
            dict(claims), self.private, self.algorithm, {k: v for k, v in headers.items() if v is not None}
        )
        return str(text)


class Issuer:
    """Serves a discovery document and keys; ``with`` it."""

    def __init__(self) -> None:
        self.keys: list[SigningKey] = [SigningKey("first")]
        self.asked: list[str] = []
        # By path, what is answered instead: a status with a body, or headers with it.
        self.instead: dict[str, tuple[int, bytes, Mapping[str, str]]] = {}
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.asked.append(self.path)
                status, body, headers = issuer.answer(self.path)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=[0.01])

    def answer(self, path: str) -> tuple[int, bytes, Mapping[str, str]]:
        """Answer a request."""
        if path in self.instead:
            return self.instead[path]
        if path == "/.well-known/openid-configuration":
            return 200, json.dumps({"issuer": self.url, "jwks_uri": f"{self.url}/jwks"}).encode(), {}
        if path == "/jwks":
            return 200, json.dumps({"keys": [key.jwk for key in self.keys]}).encode(), {}
        return 404, b"", {}

    def claims(self, **more: Any) -> Json:
        """Return the claims of a token that counts for five minutes; one that is given as None is left out."""
        now = int(time.time())
        claims = {"iss": self.url, "sub": "ann", "aud": AUDIENCE, "iat": now, "exp": now + 300, "jti": "t1", **more}
        return {name: value for name, value in claims.items() if value is not None}

    def token(self, **more: Any) -> str:
        """Return a token signed by the newest key."""
        return self.keys[-1].sign(self.claims(**more))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
