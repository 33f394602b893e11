"""Settings: what they mean, what they refuse, and that the README lists every one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from upload_server.config import ConfigError
from upload_server.options import documented, load, mistyped, named_quotas
from upload_server.process.words import parse_bytes, parse_seconds

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("5", 5), ("0.5", 0.5), ("500ms", 0.5), ("10s", 10), ("5m", 300), ("24h", 86400), ("7d", 604800)],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"keep_rows": "7d"}, "--keep-rows: needs --keep-content"),
        ({"keep_rows": "7d", "keep_content": "8d"}, "--keep-rows: must be at least --keep-content, --request-ttl and"),
        ({"keep_rows": "6d", "keep_content": "1d"}, "--keep-rows: must be at least --keep-content, --request-ttl and"),
        ({"keep_rows": "1h", "keep_content": "1h", "request_ttl": "1h"}, "--keep-rows: must be at least"),
        ({"keep_rows": "7d", "keep_content": "1d", "database_url": "postgresql://h/d"}, "--keep-rows: needs --pruned"),
        ({"pruned_dir": "/exports"}, "--pruned-dir: needs --keep-rows"),
    ],
)
def test_rows_go_after_all_else_that_is_kept(given: dict[str, str], says: str) -> None:
    with pytest.raises(ConfigError, match=f"^{says}"):
        load(given, {})
    load({"keep_rows": "7d", "keep_content": "7d", "pruned_dir": "/exports"}, {})


@pytest.mark.parametrize(("text", "size"), [("5", 5), ("64KiB", 65536), ("8mib", 8 << 20), ("1TiB", 1 << 40)])
def test_sizes(text: str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "x", "5 parsecs", "nan-ish", "1.5.2s"])
def test_what_is_no_number_is_refused_with_the_option(text: str) -> None:
    with pytest.raises(ConfigError, match="--idle-timeout"):
        load({"idle_timeout": text}, {})


@pytest.mark.parametrize("text", ["nan", "inf", "-1s", "0"])
def test_what_bounds_nothing_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--idle-timeout"):
        load({"idle_timeout": text}, {})


@pytest.mark.parametrize(
    ("option", "text", "rule"),
    [
        ("idle_timeout", "10 minutes", "'10 minutes' is not a duration such as 500ms, 10s, 5m, 24h or 7d"),
        ("idle_timeout", "50ms", "must be from 100ms to 36500d"),
        ("upload_ttl", "999999d", "must be from 1s to 36500d"),
        ("max_file_bytes", "10MB", "'10MB' is not a size such as 64KiB, 8MiB or 1TiB"),
        ("max_file_bytes", "8388608TiB", "must be from 1 to 1048576TiB"),
        ("max_message_bytes", "4GiB", "must be from 1MiB to 1GiB"),
        ("grpc_port", "http", "'http' is not a whole number"),
        ("min_rate", "-1", "must be from 0 to 1GiB, or auto"),
        ("grpc_port", "65536", "must be from 0 to 65535"),
        ("max_calls", "9" * 400, "is not a whole number"),
        ("allowed_hosts", "files.example.com, http://x", "'http://x' is not a Host name without scheme and port"),
        ("allowed_origins", "https://a.example, *", "'*' is not an origin (scheme, host, port)"),
        ("allowed_origins", "app.example", "'app.example' is not an origin"),
        ("allowed_origins", "https://app.example/", "'https://app.example/' is not an origin"),
        ("allowed_origins", "ftp://app.example", "'ftp://app.example' is not an origin"),
        ("allowed_origins", "null", "'null' is not an origin"),
        ("allowed_origins", "capacitor://localhost/", "'capacitor://localhost/' is not an origin"),
        ("allowed_headers", "X-Tenant, *, a b", "'a b' is not the name of a header, such as X-Api-Version"),
        ("allowed_origins", "https://a b", "'https://a b' is not an origin"),
        ("allowed_origins", "https://[::1", "'https://[::1' is not an origin"),
        ("allowed_origins", "https://a:65536", "'https://a:65536' is not an origin"),
        ("allowed_hosts", "x:8080", "'x:8080' is not a Host name without scheme and port"),
    ],
)
def test_a_refusal_says_the_rule_as_one_would_type_it(option: str, text: str, rule: str) -> None:
    with pytest.raises(ConfigError, match=f"^--{option.replace('_', '-')}: .*{re.escape(rule)}"):
        load({option: text}, {})


@pytest.mark.parametrize(
    ("given", "least_bytes"),
    [
        ({}, 0),
        ({"auth": "none"}, 0),
        ({"auth": "required"}, 60 * 1024),
        ({"auth": "required", "min_rate": "0"}, 0),
        ({"min_rate": "2KiB", "idle_timeout": "500ms"}, 1024),
    ],
)
def test_who_has_a_name_must_send_at_some_rate_unless_another_is_given(given: dict[str, str], least_bytes: int) -> None:
    assert load(given, {}).least_bytes == least_bytes


def test_named_quotas_differ_from_those_of_everybody_in_what_they_say() -> None:
    config = load({"quota_calls": "100", "quota_uploads": "7"}, {})
    named = named_quotas("# those who pay\n\nlarge bytes=2TiB calls=0\nsmall uploads=1 open-files=10\n", config)
    assert {name: (own.quota_bytes, own.quota_calls, own.quota_uploads) for name, own in named.items()} == {
        "large": (2 << 40, 0, 7),
        "small": (0, 100, 1),
    }
    assert named["small"].quota_open_files == 10


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("a bytes=10GB", "line 2: '10GB' is not a size"),
        ("a bytes=-1", "line 2: --quota-bytes: must be from 0"),
        ("a files=1", "line 2: must be a name, and behind it, each at most once: open-files="),
        ("a calls=1 calls=2", "line 2: must be a name"),
        ("a calls", "line 2: must be a name"),
        ("calls=1", "line 2: must be a name"),
        ("b calls=2", "line 2: the name b is there twice"),
    ],
)
def test_a_line_of_quotas_that_cannot_be_read_is_named(line: str, says: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(says)}"):
        named_quotas(f"b calls=1\n{line}\n", load({}, {}))


def test_quotas_have_names_for_tokens_alone() -> None:
    given = {"auth": "required", "jwt_issuer": "https://x", "jwt_audience": "y", "quotas_file": "/q"}
    with pytest.raises(ConfigError, match="--quotas-file: needs --tokens-file"):
        load(given, {}).check_auth()


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"host": "0.0.0.0"}, "--host 0.0.0.0: others than this machine reach that address"),  # noqa: S104
        ({"host": "0.0.0.0", "auth": "required"}, "--auth required: needs --tokens-file"),  # noqa: S104
        ({"host": "0.0.0.0", "auth": "required", "tokens_file": "/t"}, "credentials would travel there in plain"),  # noqa: S104
        ({"auth": "sometimes"}, "--auth: must be none or required"),
        ({"tokens_file": "/t"}, "--tokens-file: needs --auth required"),
        ({"auth": "none", "jwt_issuer": "https://x"}, "--jwt-issuer: needs --auth required"),
        ({"auth": "required", "jwt_issuer": "https://x"}, "--jwt-audience: must be given"),
        ({"auth": "required", "cert_principal": "uri"}, "--cert-principal: needs --tls-client-auth"),
        ({"auth": "required", "tokens_file": "/t", "trusted_proxies": "cert:dns:a"}, "--trusted-proxies: needs --tls-"),
    ],
)
def test_callers_whom_nobody_has_let_in_are_kept_out_at_the_start(given: dict[str, str], says: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)):
        load(given, {}).check_auth()


def test_issuers_have_aliases_and_are_found_by_discovery_when_there_are_several() -> None:
    given = {"auth": "required", "jwt_issuer": "https://x/?a=b, corp=https://y", "jwt_audience": "y"}
    config = load(given, {})
    config.check_auth()
    assert config.jwt_issuers == [("jwt", "https://x/?a=b"), ("corp", "https://y")]
    with pytest.raises(ConfigError, match="--jwt-jwks: is for one issuer"):
        load({**given, "jwt_jwks": "https://x/keys"}, {}).check_auth()


def test_roles_of_certificates_need_certificates_that_name() -> None:
    with pytest.raises(ConfigError, match="--cert-roles: needs --cert-principal"):
        load({"auth": "required", "tokens_file": "/t", "cert_roles": "operator=x"}, {}).check_auth()


def test_host_names_are_taken_as_a_host_header_has_them() -> None:
    assert load({"allowed_hosts": "files.example.com,[::1]"}, {}).allowed_hosts == ("files.example.com", "[::1]")


@pytest.mark.parametrize(
    ("host", "bound", "on_loopback"),
    [("::1", "[::1]", True), ("[::1]", "[::1]", True), ("::", "[::]", False), ("localhost", "localhost", True)],
)
def test_an_ipv6_address_may_be_given_without_brackets(host: str, bound: str, on_loopback: bool) -> None:
    config = load({"host": host}, {})
    assert (config.host, config.on_loopback) == (bound, on_loopback)


@pytest.mark.parametrize(
    ("host", "reflection", "on"),
    [("127.0.0.1", "auto", True), ("192.0.2.1", "auto", False), ("192.0.2.1", "true", True), ("::1", "false", False)],
)
def test_reflection_is_on_for_this_machine_only_unless_told_otherwise(host: str, reflection: str, on: bool) -> None:
    assert load({"host": host, "reflection": reflection}, {}).with_reflection is on


def test_workers_share_what_may_be_open() -> None:
    config = load({"workers": "4", "max_uploads": "10", "max_watches": "3", "max_calls": "1000"}, {})
    own = config.of_one_worker()
    assert (own.max_uploads, own.max_watches, own.max_calls, own.max_websockets) == (2, 1, 250, 250)
    assert own.max_file_bytes == config.max_file_bytes


def test_an_empty_variable_is_unset_and_one_of_kubernetes_is_none_of_ours() -> None:
    environment = {"UPLOAD_GRPC_PORT": "tcp://10.96.3.7:50051", "UPLOAD_HTTP_PORT": "", "UPLOAD_DATA_DIR": ""}
    assert load({}, environment) == load({}, {})


def test_an_option_wins_over_the_environment() -> None:
    assert load({"grpc_port": "1"}, {"UPLOAD_GRPC_PORT": "2"}).grpc_port == 1
    assert load({}, {"UPLOAD_GRPC_PORT": "2"}).grpc_port == 2


def test_mistyped_variables_are_noticed_and_others_left_alone() -> None:
    assert mistyped({"UPLOAD_HTPP_PORT": "1", "UPLOAD_SERVICE_HOST": "10.0.0.1", "UPLOAD_SERVER": "x"}) == [
        ("UPLOAD_HTPP_PORT", "UPLOAD_HTTP_PORT")
    ]


def test_the_readme_lists_every_setting_as_it_is() -> None:
    readme = (ROOT / "README.md").read_text()
    for option, _, default, meaning in documented():
        assert f"| `{option}` | {default} | {meaning} |" in readme
