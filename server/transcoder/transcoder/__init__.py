"""Decides nothing: the public names of a transcoder from google.api.http JSON calls to servicer calls.

The package must not know any service: descriptors and servicers come in, an ASGI app goes out.
"""

from .app import Transcoder, build_app
from .budget import BodyBudget
from .context import HttpContext, HttpRequest
from .errors import ErrorDetails, Fault, FaultKind, TranscodingConfigError
from .options import RequestLimits

__all__ = [
    "BodyBudget",
    "ErrorDetails",
    "Fault",
    "FaultKind",
    "HttpContext",
    "HttpRequest",
    "RequestLimits",
    "Transcoder",
    "TranscodingConfigError",
    "build_app",
]
