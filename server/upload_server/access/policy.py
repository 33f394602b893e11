"""Decides who may what: of every RPC the permission that it needs, of every role what it grants, and on whose rows.

Must not know how a caller is known. A server does not start with an RPC that has no row here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from typing import Final

from upload_server.access.identity import Identity
from upload_server.domain.caller import Caller, Permission
from upload_server.domain.errors import CannotStart, PermissionDenied
from upload_server.domain.states import Source

# None: whoever has a credential.
NEEDS: Final[Mapping[str, Permission | None]] = {
    "InitiateUpload": Permission.WRITE,
    "InitiateBatch": Permission.WRITE,
    "PutFile": Permission.WRITE,
    "UploadFile": Permission.WRITE,
    "GetFile": Permission.READ,
    "DownloadFile": Permission.DOWNLOAD,
    "ListFiles": Permission.READ,
    "GetBatch": Permission.READ,
    "ListBatches": Permission.READ,
    "WatchStatus": Permission.READ,
    "CancelFile": Permission.CANCEL,
    "CancelBatch": Permission.CANCEL,
    "DeleteContent": Permission.CANCEL,
    "ListAuditEvents": Permission.AUDIT,
    "GetStatistics": Permission.COUNT,
    "GetCaller": None,
    # No RPCs, but asked of the same table.
    "CreateTicket": Permission.WRITE,
    "Metrics": Permission.METRICS,
    "Reflection": None,
}

_OWN: Final = False
_ALL: Final = True
# By role, or by scope of a JWT: what it grants, and whether on everybody's rows.
GRANTS: Final[Mapping[str, Mapping[Permission, bool]]] = {
    "user": {
        Permission.WRITE: _OWN,
        Permission.READ: _OWN,
        Permission.DOWNLOAD: _OWN,
        Permission.CANCEL: _OWN,
        Permission.AUDIT: _OWN,
        Permission.COUNT: _OWN,
    },
    "operator": {
        Permission.READ: _ALL,
        Permission.DOWNLOAD: _ALL,
        Permission.CANCEL: _ALL,
        Permission.AUDIT: _ALL,
        Permission.COUNT: _ALL,
        Permission.METRICS: _ALL,
    },
    "auditor": {
        Permission.READ: _ALL,
        Permission.AUDIT: _ALL,
        Permission.COUNT: _ALL,
        Permission.METRICS: _ALL,
    },
    "monitor": {Permission.COUNT: _ALL, Permission.METRICS: _ALL},
    "upload.read": {Permission.READ: _OWN, Permission.DOWNLOAD: _OWN, Permission.AUDIT: _OWN, Permission.COUNT: _OWN},
    "upload.write": {Permission.WRITE: _OWN},
    "upload.cancel": {Permission.CANCEL: _OWN},
}
# Scopes that are a role by another name.
SCOPES: Final[Mapping[str, str]] = {
    "upload.operate": "operator",
    "upload.audit": "auditor",
    "upload.metrics": "monitor",
}
ROLES: Final = ("user", "operator", "auditor", "monitor")
# What a caller lacks, in the words of a JWT's scopes.
SCOPE_OF: Final[Mapping[Permission, str]] = {
    Permission.WRITE: "upload.write",
    Permission.READ: "upload.read",
    Permission.DOWNLOAD: "upload.read",
    Permission.CANCEL: "upload.cancel",
    Permission.AUDIT: "upload.audit",
    Permission.COUNT: "upload.read",
    Permission.METRICS: "upload.metrics",
}


def check_complete(rpcs: Collection[str]) -> None:
    """Raise ``CannotStart`` where an RPC has no row: nobody has decided who may call it."""
    missing = sorted(set(rpcs) - NEEDS.keys())
    if missing:
        raise CannotStart(f"access/policy.py has no row for {', '.join(missing)}")


def named_roles(option: str, words: Sequence[str]) -> Sequence[tuple[str, str]]:
    """Read what names have which roles, each ``ROLE=NAME``; raises ``CannotStart``."""
    named = [word.partition("=")[::2] for word in words]
    for role, name in named:
        if role not in ROLES or not name:
            raise CannotStart(f"{option}: {role!r} is no ROLE=NAME with a role of {', '.join(ROLES)}")
    return tuple(named)


def roles_of(named: Sequence[tuple[str, str]], names: Collection[object]) -> frozenset[str]:
    """Return the roles of a caller with these names. Everybody is a user, unless that is a role with names too."""
    roles = {role for role, name in named if name in names}
    everybody = all(role != "user" for role, _ in named)
    return frozenset({*roles, "user"} if everybody else roles)


# Asked for every call.
@lru_cache(maxsize=1024)
def granted(roles: frozenset[str]) -> Mapping[Permission, bool]:
    """Return what roles grant, and whether on everybody's rows: of several the widest."""
    found: dict[Permission, bool] = {}
    for role in roles:
        for permission, everybody in GRANTS.get(SCOPES.get(role, role), {}).items():
            found[permission] = found.get(permission, _OWN) or everybody
    return found


def caller_of(identity: Identity, method: str, source: Source, peer: str) -> Caller:
    """Return the caller of ``method``; raises ``PermissionDenied``.

    Whose rows it sees depends on the role that lets it call: who audits everybody's cancels none but their own.
    """
    grants = granted(identity.roles)
    needed = NEEDS[method]
    if needed is not None and needed not in grants:
        raise PermissionDenied(SCOPE_OF[needed])
    everybody = needed is not None and grants[needed]
    return Caller(
        source,
        identity.principal,
        None if everybody else identity.principal,
        frozenset(grants),
        identity.credential,
        peer,
        identity.expires_at,
        identity.roles,
    )
