"""Every named bug once, each with what is known to catch it; and nobody complains of the server as it is."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from functools import partial
from pathlib import Path

from robustness.faults.catches import CRASH_CATCHES, crash_escapes
from robustness.prove.catches import CATCHES, SOUND, escapes, play
from robustness.prove.checkers import check
from robustness.prove.parts.figures import Figures, Share
from robustness.prove.stage import Patience

Try = Callable[[Path], Coroutine[None, None, list[str]]]


def run(share: Share, figures: Figures) -> None:
    """Play every bug; one that is not caught is found wanting as much as a broken promise."""
    for (kind, as_it_must_be), name, tried in _all():
        folder = Path(tempfile.mkdtemp(prefix="prove-"))
        said = asyncio.run(_said(tried(folder)))
        figures.counts[kind] += 1
        figures.counts[as_it_must_be] += not said
        figures.found((f"{name}: {text}" for text in said), folder)
        if not said:
            shutil.rmtree(folder)
        share.say(f"{name}: {said[0] if said else as_it_must_be}")


def _all() -> Iterator[tuple[tuple[str, str], str, Try]]:
    for bug in CATCHES:
        yield ("mutants", "mutants caught"), bug, partial(_escapes, escapes, bug)
    for bug in CRASH_CATCHES:
        yield ("mutants under crashes", "caught under crashes"), bug, partial(_escapes, crash_escapes, bug)
    for scenario, on in SOUND:
        kind = ("scenarios without a bug", "nobody complains")
        yield kind, f"{scenario} {on}".strip(), partial(_sound, scenario, on)


async def _said(tried: Coroutine[None, None, list[str]]) -> list[str]:
    """What it says; a bug that cannot be put in any more, or a server that does not start, says so too."""
    try:
        return await tried
    except Exception as error:  # noqa: BLE001 - told, and counted
        return [repr(error)[-500:]]


async def _escapes(tried: Callable[[str, Path], Awaitable[str]], bug: str, folder: Path) -> list[str]:
    said = await tried(bug, folder)
    return [said] if said else []


async def _sound(scenario: str, on: str, folder: Path) -> list[str]:
    return [str(found) for found in check(await play(scenario, on, folder, Patience()))]
