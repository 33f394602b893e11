"""Settings: what they mean, what they refuse, and that the README lists every one."""

from __future__ import annotations

from pathlib import Path

import pytest

from upload_server.config import ConfigError, documented, load, mistyped, parse_bytes, parse_seconds

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("5", 5), ("0.5", 0.5), ("500ms", 0.5), ("10s", 10), ("5m", 300), ("24h", 86400), ("7d", 604800)],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_seconds(text) == seconds


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
