"""Decides how settings are given: as options, as environment variables, and of named quotas as lines of a file.

Every setting is an option (``--grpc-port``) and an environment variable (``UPLOAD_GRPC_PORT``); the option wins. Must
not know what a setting means.
"""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, fields, replace
from typing import Any

from upload_server.config import Config, ConfigError, option_name, typed


def env_name(item: Field[Any]) -> str:
    """Return the environment variable of a setting."""
    return f"UPLOAD_{item.name.upper()}"


def _shown_default(item: Field[Any]) -> str:
    """Return a default as one would type it."""
    default = item.default
    if default is MISSING or default in ("", (), None):
        return ""
    if isinstance(default, tuple):
        return ",".join(default)
    return str(default).lower() if isinstance(default, bool) else typed(item, default)


def _in_brackets(item: Field[Any]) -> str:
    default = _shown_default(item)
    return f" (default {default})" if default else ""


def add_options(parser: argparse.ArgumentParser, names: Sequence[str] | None = None) -> None:
    """Add an option for every setting, or for those of these names."""
    for item in fields(Config):
        if names is not None and item.name not in names:
            continue
        parser.add_argument(
            f"--{option_name(item)}",
            dest=item.name,
            metavar="VALUE",
            default=argparse.SUPPRESS,
            help=f"{item.metadata['help']}{_in_brackets(item)} [{env_name(item)}]",
        )


def load(options: Mapping[str, str], environment: Mapping[str, str]) -> Config:
    """Build the Config from parsed options and the environment; raises ConfigError naming what is wrong."""
    values: dict[str, Any] = {}
    for item in fields(Config):
        name, text = f"--{option_name(item)}", options.get(item.name)
        if text is None:
            name, text = env_name(item), environment.get(env_name(item), "")
            # Unset; or made by Kubernetes, of a Service named `upload-grpc` or `upload-http`.
            if not text or text.startswith("tcp://"):
                continue
        try:
            values[item.name] = item.metadata["parse"](text)
        except ValueError as error:
            raise ConfigError(f"{name}: {error}") from None
    return Config(**values)


def named_quotas(text: str, config: Config) -> Mapping[str, Config]:
    """Read a file of quotas: by name, the settings with its own ``--quota-…``; raises ConfigError naming the line.

    A line is ``NAME open-files=… bytes=… uploads=… watches=… websockets=… calls=…``; what it leaves out is as for
    everybody. A line that begins with ``#`` says nothing.
    """
    found: dict[str, Config] = {}
    for number, line in enumerate(text.splitlines(), 1):
        name, *words = line.split() or ["#"]
        if name.startswith("#"):
            continue
        try:
            if name in found:
                raise ConfigError(f"the name {name} is there twice")
            found[name] = replace(config, **_parse_quota(name, words))
        except ValueError as error:
            raise ConfigError(f"line {number}: {error}") from None
    return found


def _parse_quota(name: str, words: Sequence[str]) -> Mapping[str, Any]:
    known = {option_name(item): item for item in fields(Config) if item.name.startswith("quota_")}
    given = {f"quota-{key}": value for key, _, value in (word.partition("=") for word in words)}
    if "=" in name or len(given) != len(words) or not given.keys() <= known.keys() or not all(given.values()):
        may = " ".join(f"{option.removeprefix('quota-')}=…" for option in known)
        raise ConfigError(f"must be a name, and behind it, each at most once: {may}")
    return {known[option].name: known[option].metadata["parse"](value) for option, value in given.items()}


def mistyped(environment: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return (name found, name probably meant) of variables that look like a mistyped setting of ours.

    Other ``UPLOAD_…`` variables are left alone: orchestrators make such names from a service's name.
    """
    known = [env_name(item) for item in fields(Config)]
    found = []
    for name in sorted(environment):
        if name.startswith("UPLOAD_") and name not in known:
            found += [(name, meant) for meant in difflib.get_close_matches(name, known, n=1, cutoff=0.9)]
    return found


def documented() -> Sequence[tuple[str, str, str, str]]:
    """Return (option, environment variable, default, meaning) of every setting, for the README's table."""
    return [
        (f"--{option_name(item)}", env_name(item), _shown_default(item), item.metadata["help"])
        for item in fields(Config)
    ]
