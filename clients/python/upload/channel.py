"""Decides how connections behave: keepalive, sizes, retries, and which calls get a connection of their own.

Must not know what the calls mean.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from enum import Enum

DEFAULT_TARGET = "localhost:50051"
MAX_MESSAGE_BYTES = 8 * 1024 * 1024

Option = tuple[str, int | str]


class Lane(Enum):
    """A connection of its own, so that one kind of call never waits for another.

    Streams per connection are limited: with many uploads or watches open a cancel on the same connection would never
    reach the server. And a watch wants a small flow-control window, an upload a big one.
    """

    MAIN = "main"
    CANCEL = "cancel"
    WATCH = "watch"


# Safe to repeat by gRPC itself: they read, or carry a request_id (this client always sends one).
_REPEATABLE = (
    "GetFile",
    "GetBatch",
    "ListFiles",
    "ListBatches",
    "GetStatistics",
    "GetCaller",
    "ListAuditEvents",
    "InitiateUpload",
    "PutFile",
    "InitiateBatch",
    "CancelFile",
    "CancelBatch",
    "DeleteContent",
)

_SERVICE_CONFIG = json.dumps(
    {
        "methodConfig": [
            {
                "name": [{"service": "upload.v1.UploadService", "method": name} for name in _REPEATABLE],
                "retryPolicy": {
                    "maxAttempts": 4,
                    "initialBackoff": "0.1s",
                    "maxBackoff": "2s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ]
    }
)

_COMMON: tuple[Option, ...] = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # A dead peer is noticed in half a minute. Without the third option grpcio waits a minute whatever the second says;
    # the server allows a ping every 5 s.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    # The default waits up to two minutes before it looks for a restarted server again.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 5_000),
    ("grpc.max_reconnect_backoff_ms", 3_000),
    ("grpc.enable_retries", 1),
    ("grpc.service_config", _SERVICE_CONFIG),
)


def channel_options(target: str, lane: Lane, extra: Sequence[Option] = ()) -> list[Option]:
    """Return the options of the channel for ``lane``; ``extra`` comes last and wins."""
    options = [*_COMMON]
    # Channels with equal options share one connection; a pool of its own keeps a lane apart, and clients too: closing
    # or filling one never touches another.
    options.append(("grpc.use_local_subchannel_pool", 1))
    if lane is Lane.WATCH:
        # Without it a reader that does not read still swallows 10 MiB of stale events.
        options.append(("grpc.http2.bdp_probe", 0))
    if is_loopback(target):
        # A server on this machine is never behind the proxy that the environment may name.
        options.append(("grpc.enable_http_proxy", 0))
    return [*options, *extra]


def is_loopback(target: str) -> bool:
    """Whether a target is on this machine."""
    host = target.rpartition(":")[0] or target
    return host.strip("[]") in {"localhost", "127.0.0.1", "::1"}
