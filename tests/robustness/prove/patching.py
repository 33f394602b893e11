"""How a named bug gets into the server's code without a hook there: by text, and loudly when the text has gone."""

from __future__ import annotations
import __future__

import contextlib
import inspect
import sys
import textwrap
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from upload_server.store.sql.dialect import Dialect, Sql
from upload_server.store.sqlite.dialect import SQLITE

# What was changed, whose it is, and what it was before.
_changed: list[tuple[Any, str, object]] = []


class MutantRotten(Exception):
    """The code that a mutant changes is no longer there: the mutant must follow the code, or go."""


def change(module: ModuleType, name: str, *edits: tuple[str, str]) -> None:
    """Change the source of ``name`` (``function`` or ``Class.method``); each text must be there exactly once."""
    owner: Any = module
    *path, last = name.split(".")
    for part in path:
        owner = getattr(owner, part)
    try:
        source = textwrap.dedent(inspect.getsource(inspect.getattr_static(owner, last)))
    except (AttributeError, TypeError):
        found = inspect.getattr_static(owner, last, None)
        if not isinstance(found, classmethod | staticmethod | property):
            raise MutantRotten(f"{module.__name__}.{name} is gone") from None
        function: Any = found.fget if isinstance(found, property) else found.__func__
        source = textwrap.dedent(inspect.getsource(function))
    for old, new in edits:
        source = _edited(f"{module.__name__}.{name}", source, old, new)
    scope: dict[str, Any] = {}
    code = compile(source, f"<mutant of {name}>", "exec", flags=__future__.annotations.compiler_flag)
    exec(code, module.__dict__, scope)  # noqa: S102 - our own text
    _put(owner, last, scope[last])


@contextlib.contextmanager
def undone() -> Iterator[None]:
    """Undo afterwards what is changed meanwhile, for mutants in the test's own process."""
    before = len(_changed)
    try:
        yield
    finally:
        for owner, name, old in reversed(_changed[before:]):
            _put(owner, name, old)
        del _changed[before:]


def _put(owner: Any, name: str, new: object) -> None:
    """Set it, also where it was imported by name."""
    old = inspect.getattr_static(owner, name)
    _changed.append((owner, name, old))
    setattr(owner, name, new)
    if isinstance(owner, ModuleType):
        for module in list(sys.modules.values()):
            if module.__name__.startswith("upload_server") and getattr(module, name, None) is old:
                setattr(module, name, new)


def change_text(module: ModuleType, name: str, *edits: tuple[str, str], dialect: Dialect = SQLITE) -> None:
    """Change a statement, as it is on SQLite or another ``dialect``."""
    statement = getattr(module, name, None)
    if not isinstance(statement, Sql):
        raise MutantRotten(f"{module.__name__}.{name} is gone")
    text = statement.text(dialect)
    for old, new in edits:
        text = _edited(f"{module.__name__}.{name}", text, old, new)
    statement._texts[dialect] = text


def _edited(where: str, text: str, old: str, new: str) -> str:
    if text.count(old) != 1:
        raise MutantRotten(f"{where} holds {old!r} {text.count(old)} times instead of once:\n{text}")
    return text.replace(old, new)
