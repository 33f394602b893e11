"""Decides what can be chosen when an app is built, and the defaults.

Must not know how any choice is carried out.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .budget import BodyBudget
from .errors import ErrorDetails, TranscodingConfigError, no_details
from .printer import PrintStyle

MAX_DEPTH_LIMIT = 200
"""JSON deeper than this would need more of the interpreter's stack than is safe to take."""


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """How much one request may hold."""

    max_bytes: int = 8 * 1024 * 1024
    """Of its body."""
    max_elements: int = 10_000
    """Of its repeated fields together, and parameters of its query."""
    max_value_bytes: int = 8 * 1024 * 1024
    """Of one element of a list, and of any other value of a long body; in JSON so many characters."""


@dataclass(frozen=True, slots=True)
class Options:
    """The keyword arguments of build_app."""

    reject_unknown: bool = False
    style: PrintStyle = field(default_factory=PrintStyle)
    request_limits: RequestLimits = field(default_factory=RequestLimits)
    method_limits: Mapping[str, RequestLimits] = field(default_factory=dict)
    body_budget: BodyBudget = field(default_factory=BodyBudget)
    max_path_bytes: int = 8 * 1024
    max_query_bytes: int = 64 * 1024
    max_json_depth: int = 100
    body_timeout: float = 60.0
    body_idle_timeout: float = 5.0
    default_timeout: float | None = None
    sse_id_field: str | None = None
    sse_resume_field: str | None = None
    sse_heartbeat: float = 15.0
    error_details: ErrorDetails = no_details
    http_statuses: Mapping[str, int] = field(default_factory=dict)
    extra_metadata: Sequence[tuple[str, str | bytes]] = ()
    www_authenticate: str = "Bearer"
    before_body: Callable[[Any], Awaitable[Any]] | None = None

    def __post_init__(self) -> None:
        for name in (
            "max_path_bytes",
            "max_query_bytes",
            "max_json_depth",
            "body_timeout",
            "body_idle_timeout",
            "sse_heartbeat",
        ):
            if getattr(self, name) <= 0:
                raise TranscodingConfigError(f"{name} must be positive")
        for limits in (self.request_limits, *self.method_limits.values()):
            if min(limits.max_bytes, limits.max_elements, limits.max_value_bytes) <= 0:
                raise TranscodingConfigError("limits of requests must be positive")
        if self.max_json_depth > MAX_DEPTH_LIMIT:
            raise TranscodingConfigError(f"max_json_depth must be at most {MAX_DEPTH_LIMIT}")
        if not (self.www_authenticate.isascii() and self.www_authenticate.isprintable()):
            raise TranscodingConfigError("www_authenticate must be printable ASCII, as a header is")
        if self.default_timeout is not None and self.default_timeout <= 0:
            raise TranscodingConfigError("default_timeout must be positive")
