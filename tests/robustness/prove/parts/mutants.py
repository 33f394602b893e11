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
from robustness.prove.cluster_stage import CLUSTER_CATCHES, CLUSTER_SOUND, escapes_cluster, play_cluster
from robustness.prove.history import History
from robustness.prove.object_stage import OBJECT_CATCHES, OBJECT_SCENARIOS, play_objects
from robustness.prove.parts.figures import Figures, Share
from robustness.prove.stage import Patience
from support.object_store import STORES, installed
from support.postgres import why_missing

Try = Callable[[Path], Coroutine[None, None, list[str]]]


def run(share: Share, figures: Figures) -> None:
    """Play every bug; an escaped mutant counts as much as a broken promise."""
    for (kind, as_it_must_be), name, tried in _all():
        folder = Path(tempfile.mkdtemp(prefix="prove-"))
        complaints = asyncio.run(_complaints(tried(folder)))
        figures.counts[kind] += 1
        figures.counts[as_it_must_be] += not complaints
        figures.add_violations((f"{name}: {text}" for text in complaints), folder)
        if not complaints:
            shutil.rmtree(folder)
        share.say(f"{name}: {complaints[0] if complaints else as_it_must_be}")


def _all() -> Iterator[tuple[tuple[str, str], str, Try]]:
    for bug in CATCHES:
        yield ("mutants", "mutants caught"), bug, partial(_escapes, escapes, bug)
    if not why_missing():
        for bug in CLUSTER_CATCHES:
            yield ("mutants of many nodes", "caught on many nodes"), bug, partial(_escapes, escapes_cluster, bug)
        for scenario, on in CLUSTER_SOUND:
            kind = ("scenarios of many nodes without a bug", "nobody complains of many nodes")
            yield kind, f"{scenario} {on}".strip(), partial(_sound, play_cluster, scenario, on)
    for on in STORES if installed() else ():
        for bug, scenario in OBJECT_CATCHES.items():
            kind = ("mutants of object stores", "caught on object stores")
            yield kind, f"{bug} {on}", partial(_silent_on, scenario, on, bug)
        for scenario in OBJECT_SCENARIOS:
            kind = ("scenarios of object stores without a bug", "nobody complains of object stores")
            yield kind, f"{scenario} {on}", partial(_complaints_on, scenario, on)
    for bug in CRASH_CATCHES:
        yield ("mutants under crashes", "caught under crashes"), bug, partial(_escapes, crash_escapes, bug)
    for scenario, on in SOUND:
        kind = ("scenarios without a bug", "nobody complains")
        yield kind, f"{scenario} {on}".strip(), partial(_sound, play, scenario, on)


async def _complaints(tried: Coroutine[None, None, list[str]]) -> list[str]:
    """Return the complaints of a try; a bug that no longer applies, or a server that does not start, is one too."""
    try:
        return await tried
    except Exception as error:  # noqa: BLE001 - a complaint as well
        return [repr(error)[-500:]]


async def _escapes(tried: Callable[[str, Path], Awaitable[str]], bug: str, folder: Path) -> list[str]:
    complaint = await tried(bug, folder)
    return [complaint] if complaint else []


async def _silent_on(scenario: str, on: str, bug: str, _: Path) -> list[str]:
    return [] if await play_objects(scenario, on, bug) else [f"{scenario} says nothing of {bug}"]


async def _complaints_on(scenario: str, on: str, _: Path) -> list[str]:
    return await play_objects(scenario, on)


async def _sound(playing: Callable[..., Awaitable[History]], scenario: str, on: str, folder: Path) -> list[str]:
    return [str(found) for found in check(await playing(scenario, on, folder, Patience()))]
