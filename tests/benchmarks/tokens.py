"""Known callers while somebody sends 10,000 tokens a second that nobody has signed, beside a quiet minute.

In one process, on the event loop that calls are served on: what a known caller waits for is the loop and the lock of
Python, which the thread that verifies has half of the time. Options: ``--rate N`` unknown tokens a second (10000),
``--seconds N`` of each (5), ``--rounds N`` (3; medians are compared).
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time

import uvloop

from support.issuer import AUDIENCE, Issuer
from upload_server.access.identity import Presented
from upload_server.access.jwks import Keys, of_issuer
from upload_server.access.jwt import Jwt, Rules
from upload_server.domain.errors import UploadError

_TICK = 0.001


async def known(jwt: Jwt, token: str, seconds: float) -> list[float]:
    """Ask for a known token every millisecond; returns how late each answer was, in ms."""
    presented = Presented((f"Bearer {token}",))
    late: list[float] = []
    end = time.perf_counter() + seconds
    while (due := time.perf_counter() + 0.001) < end:
        await asyncio.sleep(0.001)
        await jwt.identify(presented)
        late.append((time.perf_counter() - due) * 1000)
    return late


async def unknown(jwt: Jwt, token: str, rate: int) -> None:
    """Send tokens with a signature of nobody's, each another one, until cancelled."""
    signed, _, signature = token.rpartition(".")
    number = 0

    async def one(number: int) -> None:
        forged = f"{signed}.{number:08d}{signature[8:]}"
        try:
            await jwt.identify(Presented((f"Bearer {forged}",)))
        except UploadError:
            return
        raise AssertionError("a forged token was taken")

    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        while True:
            while number < (time.perf_counter() - began) * rate:
                for _ in range(int(rate * _TICK)):
                    number += 1
                    group.create_task(one(number))
                # A call is one turn of the loop for others too.
                await asyncio.sleep(0)
            await asyncio.sleep(_TICK)


def p99(values: list[float]) -> float:
    """The slowest per cent."""
    return statistics.quantiles(values, n=100)[98]


async def measure(options: argparse.Namespace) -> None:
    """Measure in turns, so that a noisy minute hits both."""
    quiet, busy = [], []
    with Issuer() as issuer:
        jwt = Jwt([(Rules(issuer.url, AUDIENCE), Keys(of_issuer(issuer.url)))])
        token = issuer.token()
        await jwt.identify(Presented((f"Bearer {token}",)))
        for _ in range(options.rounds):
            quiet.append(p99(await known(jwt, token, options.seconds)))
            attack = asyncio.create_task(unknown(jwt, token, options.rate))
            busy.append(p99(await known(jwt, token, options.seconds)))
            attack.cancel()
            (ended,) = await asyncio.gather(attack, return_exceptions=True)
            assert isinstance(ended, asyncio.CancelledError), ended
        jwt.close()
    one, other = statistics.median(quiet), statistics.median(busy)
    print(f"p99 of a known caller: {one:.2f} ms quiet, {other:.2f} ms under {options.rate} unknown tokens a second")
    print(f"ratio {other / one:.2f} (rounds: {' '.join(f'{b / a:.2f}' for a, b in zip(quiet, busy, strict=True))})")


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    sys.setswitchinterval(0.0005)
    uvloop.run(measure(parser.parse_args()))
