"""Decides which settings exist, their defaults and their rules.

Must not know where their values stand.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from upload_server.process.hosts import Origin, is_loopback_name
from upload_server.process.tls import ClientAuth, TlsFiles
from upload_server.process.words import (
    DAY,
    MIB,
    SIZES,
    UNITS,
    parse_bool,
    parse_bytes,
    parse_headers,
    parse_host,
    parse_hosts,
    parse_int,
    parse_list,
    parse_origins,
    parse_seconds,
)

_DATA_DIR = Path("upload-data")
# Of the file in the data directory.
DATABASE_NAME = "upload.sqlite3"
_LAST_PORT = 65535
# A century: with more, dates before the first year would come out.
_MAX_SECONDS = 36_500 * DAY
# gRPC's options hold 31 bits, a row 63.
_MAX_COUNT = 2**31 - 1
_MAX_MESSAGE_BYTES = 1024 * MIB
_MAX_FILE_BYTES = 2**60
# Of callers who have names: who sends slower holds a stream and its descriptors for next to nothing.
_MIN_RATE = 1024


class ConfigError(ValueError):
    """A setting breaks its rule; the message names the setting."""


def _check_url(option: str, text: str) -> None:
    """Raise ``ConfigError`` unless ``text`` names a server of HTTP."""
    try:
        parts = urlsplit(text)
        fits = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fits = False
    if not fits:
        raise ConfigError(f"{option}: must be an http:// or https:// URL, such as http://127.0.0.1:4318")


def _option(
    default: object,
    help_text: str,
    parse: Callable[[str], object] = str,
    low: float | None = None,
    high: float = _MAX_COUNT,
) -> Any:  # as dataclasses.field itself is typed
    """Describe a setting; ``low`` and ``high`` bound it, both included, if ``low`` is given."""
    if parse is parse_seconds:
        high = _MAX_SECONDS
    return field(default=default, metadata={"help": help_text, "parse": parse, "low": low, "high": high})


def _optional_bool(text: str) -> bool | None:
    return None if text == "auto" else parse_bool(text)


def _optional_bytes(text: str) -> int | None:
    size = None if text == "auto" else parse_bytes(text)
    if size is not None and not 0 <= size <= _MAX_MESSAGE_BYTES:
        raise ValueError("must be from 0 to 1GiB, or auto")
    return size


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Every setting of a server process. Sizes are bytes, times are seconds."""

    host: str = _option("127.0.0.1", "address both ports bind; anything but loopback needs --auth", parse_host)
    auth: str = _option("", "whether callers must say who they are: none or required; unset is none, on loopback only")
    tokens_file: str = _option(
        "", "with --auth required: file of hashed tokens, which upload-server token create writes"
    )
    quotas_file: str = _option(
        "", "file of named quotas, NAME open-files=… bytes=… …, of which a line of --tokens-file may name one"
    )
    jwt_issuer: tuple[str, ...] = _option(
        (),
        "with --auth required: URL of the issuer whose JWTs count; ALIAS=URL: they are ALIAS:SUB, else jwt:SUB;"
        " comma-separated: several",
        parse_list,
    )
    jwt_audience: str = _option("", "what a JWT's aud must name: this service")
    jwt_jwks: str = _option("", "file or URL of the issuer's keys; empty: where the issuer's discovery says")
    jwt_algorithms: tuple[str, ...] = _option(
        ("RS256", "ES256"), "comma-separated: RS256, PS256, ES256, ES384, EdDSA", parse_list
    )
    jwt_typ: str = _option("at+jwt", "what a JWT's typ must be; any: for issuers that do not say it")
    jwt_leeway: float = _option(30, "how far the issuer's clock may be from ours", parse_seconds, 0)
    jwt_role_claim: str = _option("", "claim with a caller's groups, such as groups or realm_access.roles")
    jwt_roles: tuple[str, ...] = _option((), "comma-separated ROLE=GROUP, such as operator=admins", parse_list)
    cert_principal: str = _option(
        "",
        "uri, email or dns: the one name of that kind in a caller's certificate is the caller; empty: nobody is",
    )
    cert_roles: tuple[str, ...] = _option(
        (), "comma-separated ROLE=NAME of such certificates, such as operator=spiffe://example/sre", parse_list
    )
    trusted_proxies: tuple[str, ...] = _option(
        (),
        "comma-separated names of the certificates of proxies to believe, such as cert:dns:envoy.example",
        parse_list,
    )
    grpc_port: int = _option(50051, "gRPC port; 0 picks a free one", parse_int, 0, _LAST_PORT)
    http_port: int = _option(8080, "HTTP port; 0 picks a free one", parse_int, 0, _LAST_PORT)
    tls_cert: str = _option(
        "", "PEM file of the server's certificate, then of its signers; with --tls-key both ports speak TLS"
    )
    tls_key: str = _option("", "PEM file of its key, which nobody else may read")
    tls_client_ca: str = _option("", "PEM file of the signers of callers' certificates, for --tls-client-auth")
    tls_client_auth: str = _option(
        "none", "none, optional (gRPC asks on --grpc-mtls-port only) or required: whether callers show a certificate"
    )
    grpc_mtls_port: int = _option(
        0, "another gRPC port, where each caller shows a certificate; 0: none", parse_int, 0, _LAST_PORT
    )
    workers: int = _option(
        1,
        "processes that serve on the same ports; connections, and with them calls, spread among them",
        parse_int,
        1,
        64,
    )
    data_dir: Path = _option(_DATA_DIR, "folder of the SQLite file and the bytes", Path)  # noqa: RUF009 - immutable
    database_url: str = _option("", "sqlite:///path, or postgresql://…; empty: upload.sqlite3 in the data dir")
    storage_url: str = _option(
        "", "file:///folder, or s3://bucket/prefix?endpoint=…&region=…; empty: the folder bytes in the data dir"
    )
    publish_content_uri: bool = _option(
        default=False, help_text="show where the bytes of completed files lie in the object store", parse=parse_bool
    )
    max_database_bytes: int = _option(
        0,
        "announcements are refused when the database would outgrow this; 0: as large as its disk allows",
        parse_bytes,
        0,
        _MAX_FILE_BYTES,
    )
    durable_interval: float = _option(
        1, "received bytes become durable after this long, or after 8 MiB of a stream", parse_seconds, 0.01
    )
    upload_ttl: float = _option(DAY, "an upload nobody sends to for this long fails as expired", parse_seconds, 1)
    expiry_grace: float = _option(
        15 * 60, "nothing expires for this long after a start, or for --upload-ttl if that is shorter", parse_seconds, 0
    )
    request_ttl: float = _option(7 * DAY, "how long answers are kept for their request_id", parse_seconds, 1)
    keep_content: float = _option(
        0, "how long the bytes of completed files are kept, whose rows stay; 0: for ever", parse_seconds, 0
    )
    keep_rows: float = _option(
        0,
        "how long rows of what is final and their audit events are kept; at least --keep-content, which it needs,"
        " --request-ttl and 1d; 0: for ever",
        parse_seconds,
        0,
    )
    pruned_dir: str = _option(
        "", "folder, to be kept, for the audit events that --keep-rows takes; empty: pruned in the data dir"
    )
    idle_timeout: float = _option(60, "an upload stream without a byte for this long is ended", parse_seconds, 0.1)
    min_rate: int | None = _option(
        None,
        "bytes a second that an upload must bring, over --idle-timeout; auto: 1KiB with --auth required, else 0 (any)",
        _optional_bytes,
    )
    websocket_grace: float = _option(
        300, "a WebSocket lost without a close frame cancels its upload after this long", parse_seconds, 0
    )
    max_websocket_grace: float = _option(
        3600, "longest grace that a page may ask for with ?grace=; at least --websocket-grace", parse_seconds, 0
    )
    drain_grace: float = _option(10, "how long running calls may go on after SIGTERM", parse_seconds, 0)
    call_timeout: float = _option(
        30, "unary calls are ended after this long, whatever their deadline", parse_seconds, 1
    )
    bookmark_interval: float = _option(15, "a watch sends a bookmark after this long a silence", parse_seconds, 0.1)
    max_file_bytes: int = _option(1024 * 1024 * MIB, "largest size_bytes of a file", parse_bytes, 1, _MAX_FILE_BYTES)
    max_message_bytes: int = _option(
        8 * MIB,
        "largest gRPC message and largest HTTP body of a call",
        parse_bytes,
        MIB,
        _MAX_MESSAGE_BYTES,
    )
    max_calls: int = _option(
        1000, "unary calls at once; over it OVERLOADED. Cancels have as many of their own", parse_int, 1
    )
    max_uploads: int = _option(4000, "open upload streams at once; over it OVERLOADED", parse_int, 1)
    max_downloads: int = _option(200, "downloads at once; over it OVERLOADED", parse_int, 1)
    max_watches: int = _option(4000, "open watches at once; over it OVERLOADED", parse_int, 1)
    max_websockets: int = _option(1000, "open WebSockets at once; over it they are closed with 1013", parse_int, 1)
    quota_open_files: int = _option(
        100_000, "with --auth required: files of a principal that are not final; 0: any", parse_int, 0
    )
    quota_bytes: int = _option(
        0,
        "bytes of a principal: announced of open files, kept of completed ones; 0: any",
        parse_bytes,
        0,
        _MAX_FILE_BYTES,
    )
    quota_uploads: int = _option(200, "open upload streams of a principal at once; 0: any", parse_int, 0)
    quota_watches: int = _option(50, "open watches of a principal at once; 0: any", parse_int, 0)
    quota_websockets: int = _option(50, "open WebSockets of a principal at once; 0: any", parse_int, 0)
    quota_calls: int = _option(
        0,
        "calls of a principal a second, two seconds' worth at once; ten times as many cancels beside; 0: any",
        parse_int,
        0,
    )
    watch_history: int = _option(
        10_000,
        "changes kept for all slow watchers before they read the database; of named ids at most 100 each",
        parse_int,
        1,
    )
    allowed_origins: tuple[Origin, ...] = _option(
        (), "comma-separated origins of pages and apps that may call", parse_origins
    )
    allowed_headers: tuple[str, ...] = _option(
        (),
        "comma-separated headers that those pages may send, besides those of the API, of tus and of tracing",
        parse_headers,
    )
    allowed_hosts: tuple[str, ...] = _option(
        (),
        "comma-separated Host names accepted besides loopback names; beyond loopback none means any",
        parse_hosts,
    )
    reflection: bool | None = _option(
        None, "gRPC reflection: true, false or auto (on when bound to loopback)", _optional_bool
    )
    otlp_endpoint: str = _option(
        "", "URL of an OpenTelemetry collector (OTLP over HTTP), such as http://localhost:4318; empty: no traces"
    )
    log_format: str = _option("auto", "console, json or auto (console on a terminal)")
    log_level: str = _option("info", "debug, info, warning or error")
    uvloop: bool = _option(default=True, help_text="use uvloop", parse=parse_bool)
    sched_batch: bool = _option(
        default=False,
        help_text="run under SCHED_BATCH: more throughput, a little more latency (Linux)",
        parse=parse_bool,
    )
    linger: float = _option(
        0.003, "a busy writer waits this long for company before it commits; 0 never", parse_seconds, 0
    )

    def __post_init__(self) -> None:
        """Refuse values that break a rule, naming the option."""
        for item in fields(self):
            low, high = item.metadata["low"], item.metadata["high"]
            if low is not None and not low <= getattr(self, item.name) <= high:
                raise ConfigError(f"--{option_name(item)}: must be from {typed(item, low)} to {typed(item, high)}")
        for name, allowed in (
            ("log_format", ("auto", "console", "json")),
            ("log_level", ("debug", "info", "warning", "error")),
            ("tls_client_auth", tuple(ClientAuth)),
            ("cert_principal", ("", "uri", "email", "dns")),
        ):
            if getattr(self, name) not in allowed:
                raise ConfigError(f"--{name.replace('_', '-')}: must be one of {', '.join(allowed)}")
        if self.publish_content_uri and not self.storage_url.startswith("s3:"):
            raise ConfigError("--publish-content-uri: needs --storage-url s3://…; files on a disk have no address")

        if self.otlp_endpoint:
            _check_url("--otlp-endpoint", self.otlp_endpoint)
        self._check_retention()
        self._check_tls()

    def _check_retention(self) -> None:
        if self.pruned_dir and not self.keep_rows:
            raise ConfigError("--pruned-dir: needs --keep-rows, or nothing is pruned")
        if not self.keep_rows:
            return
        if not self.keep_content:
            raise ConfigError("--keep-rows: needs --keep-content, since no row goes while its bytes stay")
        least = max(self.keep_content, self.request_ttl, DAY)
        if self.keep_rows < least:
            raise ConfigError(
                f"--keep-rows: must be at least --keep-content, --request-ttl and 1d, here {least:.12g}s, or 0"
            )
        if self.database_url.startswith("postgres") and not self.pruned_dir:
            raise ConfigError(
                "--keep-rows: needs --pruned-dir with postgresql://, a folder that all nodes share and somebody keeps"
            )

    def _check_tls(self) -> None:
        if bool(self.tls_cert) != bool(self.tls_key):
            missing, given = ("key", "cert") if self.tls_cert else ("cert", "key")
            raise ConfigError(f"--tls-{missing}: must be given with --tls-{given}")
        if self.tls_client_ca and not self.tls_cert:
            raise ConfigError("--tls-client-ca: needs TLS; give --tls-cert and --tls-key too")
        if bool(self.tls_client_ca) == (self.tls_client_auth == ClientAuth.NONE):
            raise ConfigError(
                "--tls-client-auth: none goes without --tls-client-ca, optional and required need one to check by"
            )
        if self.grpc_mtls_port and self.tls_client_auth != ClientAuth.OPTIONAL:
            raise ConfigError(
                "--grpc-mtls-port: is for --tls-client-auth optional; with required --grpc-port asks for certificates"
            )

    @property
    def tls(self) -> TlsFiles | None:
        """The files of TLS; None: both ports speak plain text."""
        if not self.tls_cert:
            return None
        client_ca = Path(self.tls_client_ca) if self.tls_client_ca else None
        return TlsFiles(Path(self.tls_cert), Path(self.tls_key), client_ca, ClientAuth(self.tls_client_auth))

    @property
    def page(self) -> str:
        """Where the page is, on a port that was chosen."""
        return f"{'http' if self.tls is None else 'https'}://{self.host}"

    def check_auth(self) -> None:
        """Raise ``ConfigError`` where callers would be let in who nobody has said may be."""
        if self.auth not in ("", "none", "required"):
            raise ConfigError("--auth: must be none or required")
        if not self.auth and not self.on_loopback:
            raise ConfigError(
                f"--host {self.host}: others than this machine reach that address; say --auth required and who may call"
                " (--tokens-file, --jwt-issuer, --cert-principal), or, for everybody who reaches it to upload and"
                " cancel, --auth none"
            )
        if self.auth == "required" and not self.identity_sources:
            raise ConfigError(
                "--auth required: needs --tokens-file, --jwt-issuer or --cert-principal, or nobody could call"
            )
        if self.with_auth and not self.on_loopback and self.tls is None:
            raise ConfigError(
                f"--host {self.host}: credentials would travel there in plain text; give --tls-cert and --tls-key"
            )
        if self.identity_sources and self.auth != "required":
            raise ConfigError(f"{self.identity_sources[0]}: needs --auth required, or it would be ignored")
        if self.quotas_file and not self.tokens_file:
            raise ConfigError("--quotas-file: needs --tokens-file, whose lines name quotas")
        if self.cert_roles and not self.cert_principal:
            raise ConfigError("--cert-roles: needs --cert-principal, which says by what names")
        if (self.cert_principal or self.trusted_proxies) and self.tls_client_auth == ClientAuth.NONE:
            option = "--cert-principal" if self.cert_principal else "--trusted-proxies"
            raise ConfigError(f"{option}: needs --tls-client-auth optional or required, or nobody is asked")
        self._check_jwt()

    def _check_jwt(self) -> None:
        if not self.jwt_issuer:
            if self.jwt_jwks or self.jwt_audience or self.jwt_roles or self.jwt_role_claim:
                raise ConfigError("--jwt-issuer: must be given with the other options of JWTs")
            return
        if not self.jwt_audience:
            raise ConfigError("--jwt-audience: must be given with --jwt-issuer, or tokens for others would count here")
        if self.jwt_jwks and len(self.jwt_issuer) > 1:
            raise ConfigError("--jwt-jwks: is for one issuer; the keys of several are where their discovery says")
        if self.jwt_typ not in ("at+jwt", "any"):
            raise ConfigError("--jwt-typ: must be at+jwt or any")
        if bool(self.jwt_roles) != bool(self.jwt_role_claim):
            raise ConfigError("--jwt-roles, --jwt-role-claim: go together")

    @property
    def jwt_issuers(self) -> Sequence[tuple[str, str]]:
        """Of each issuer what stands before its subjects, and its URL."""
        parts = [(word, *word.partition("=")) for word in self.jwt_issuer]
        return [(alias, url) if between and "/" not in alias else ("jwt", word) for word, alias, between, url in parts]

    @property
    def identity_sources(self) -> Sequence[str]:
        """The options given that say who may call."""
        given = {
            "--tokens-file": self.tokens_file,
            "--jwt-issuer": self.jwt_issuer,
            "--cert-principal": self.cert_principal,
        }
        return [option for option, value in given.items() if value]

    @property
    def with_auth(self) -> bool:
        """Whether callers must say who they are."""
        return self.auth == "required"

    @property
    def least_bytes(self) -> int:
        """What an upload must bring within ``idle_timeout``; 0: a byte."""
        rate = self.min_rate if self.min_rate is not None else _MIN_RATE if self.with_auth else 0
        return int(rate * self.idle_timeout)

    def of_one_worker(self) -> Config:
        """Return the settings of each of the ``workers``: its share of what they may have open together."""
        shared = ("max_calls", "max_uploads", "max_downloads", "max_watches", "max_websockets")
        return replace(self, **{name: max(1, getattr(self, name) // self.workers) for name in shared})

    @property
    def url(self) -> str:
        """The database's URL."""
        return self.database_url or f"sqlite:///{quote(str(self.data_dir / DATABASE_NAME))}"

    @property
    def sink_url(self) -> str:
        """The URL of the place where bytes lie."""
        return self.storage_url or (self.data_dir / "bytes").absolute().as_uri()

    @property
    def on_loopback(self) -> bool:
        """Whether only this machine can reach the ports."""
        return is_loopback_name(self.host)

    @property
    def with_reflection(self) -> bool:
        """Whether gRPC reflection is on."""
        return self.on_loopback if self.reflection is None else self.reflection


def option_name(item: Field[Any]) -> str:
    """Return the option of a setting without its dashes."""
    return item.name.replace("_", "-")


def typed(item: Field[Any], value: Any) -> str:
    """Return a value of a setting as one would type it, in the largest unit that keeps it whole."""
    parse = item.metadata["parse"]
    units: Mapping[str, float] = SIZES if parse is parse_bytes else UNITS if parse is parse_seconds else {}
    for unit, size in sorted(units.items(), key=lambda pair: -pair[1]):
        if value >= size and round(value / size, 6).is_integer():
            return f"{round(value / size)}{unit}"
    return f"{value}"
