"""Hostile peers, by name: what each does, and the rate at which the service is to bear it.

A strike is the unit of its rate (a frame, a call, a KiB …, as the attack says); 0 is as fast as it can, or what an
attack holds open from its start.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from robustness.faults.attacks import http1, http2, messages, sockets
from robustness.faults.attacks.target import Target

Attack = Callable[[Target], Awaitable[None]]

RATES: Final[dict[Attack, int]] = {
    http2.rapid_reset: 10_000,
    http2.cancel_reset: 2_000,
    http2.ping_flood: 10_000,
    http2.settings_flood: 10_000,
    http2.header_flood: 10_000,
    http2.huge_metadata: 500,
    http2.calls_without_message: 2_000,
    http2.unread_answers: 100,
    http2.unfinished_messages: 0,
    http1.slow_drip: 0,
    http1.slow_rests: 0,
    http1.trailers: 1_024,
    http1.tiny_chunks: 11_000,
    http1.unfinished_bodies: 0,
    http1.garbage: 200,
    sockets.half_open_sockets: 0,
    sockets.lying_sockets: 100,
    sockets.socket_pings: 1_700,
    sockets.empty_fragments: 1_700,
    sockets.tiny_messages: 1_500,
    messages.many_elements: 10,
    messages.many_values: 10,
    messages.large_reads: 0,
    messages.largest_batches: 0,
    http2.deaf_watchers: 0,
}
ATTACKS: Final = {attack.__name__: attack for attack in RATES}
